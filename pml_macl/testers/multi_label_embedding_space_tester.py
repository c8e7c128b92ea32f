"""PML's tester for multi-hot labels."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pytorch_metric_learning.testers import GlobalEmbeddingSpaceTester
from pytorch_metric_learning.utils.common_functions import get_eval_dataloader
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from pml_macl.checks import in_float32
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.evaluation.query_share import QueryShare
from pml_macl.gather import gather_rows
from pml_macl.labels import check_labels


class MultiLabelEmbeddingSpaceTester(GlobalEmbeddingSpaceTester):
    """Evaluate a model on multi-hot labels, in place of PML's ``GlobalEmbeddingSpaceTester``.

    PML's testers treat each label column as a level of a hierarchy and evaluate each level separately. This tester
    passes all columns to the accuracy calculator as one label set per image. It records each metric under its plain
    name (``ndcg``, not ``ndcg_level0``), so that PML's ``HookContainer`` accepts the name as ``primary_metric``.

    If the calculator has ``distributed=True``, each process computes the embeddings of its share of the images, gathers
    those of the others, and ranks its share of the queries. All processes must call ``test`` with the same data sets.

    Args:
        *args: the first eight arguments of PML's tester, in its order.
        label_hierarchy_level: must be ``"all"``, because the columns are one label set.
        set_min_label_to_zero: must be False, because labels are not class indices.
        **kwargs: arguments of PML's tester: ``normalize_embeddings``, ``batch_size``, ``dataloader_num_workers``, ...
            If ``accuracy_calculator`` is None, the tester creates a
            :class:`~pml_macl.evaluation.MultiLabelAccuracyCalculator` with its default settings.

    Raises:
        ValueError: ``label_hierarchy_level`` is not ``"all"``, ``set_min_label_to_zero`` is True, or ``test`` finds
            labels that are not multi-hot.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 0]])
        >>> dataset = torch.utils.data.TensorDataset(torch.tensor([[1.0, 0.0], [1.0, 0.5], [0.0, 1.0]]), labels)
        >>> calculator = MultiLabelAccuracyCalculator(include=("ndcg",))
        >>> tester = MultiLabelEmbeddingSpaceTester(accuracy_calculator=calculator, dataloader_num_workers=0)
        >>> accuracies = tester.test({"val": dataset}, epoch=1, trunk_model=torch.nn.Identity())
        >>> {name: round(value, 4) for name, value in accuracies["val"].items()}
        {'epoch': 1, 'ndcg': 0.877}
    """

    accuracy_calculator: Any

    def __init__(
        self, *args: Any, label_hierarchy_level: str = "all", set_min_label_to_zero: bool = False, **kwargs: Any
    ) -> None:
        if label_hierarchy_level != "all":
            raise ValueError(
                "label_hierarchy_level must be 'all', because the columns of multi-hot labels are one label set, "
                f"got {label_hierarchy_level!r}; leave it out"
            )
        if set_min_label_to_zero:
            raise ValueError(
                "set_min_label_to_zero must be False, because multi-hot labels are not class indices; leave it out"
            )
        super().__init__(*args, label_hierarchy_level=label_hierarchy_level, **kwargs)
        # PML casts 2-D labels to integers, so scores and class indices would no longer be noticed later.
        self.data_and_label_getter: Any = partial(_checked, self.data_and_label_getter)

    def initialize_accuracy_calculator(self) -> None:
        if self.accuracy_calculator is None:
            self.accuracy_calculator = MultiLabelAccuracyCalculator()

    def compute_all_embeddings(
        self, dataloader: DataLoader[Any], trunk_model: torch.nn.Module, embedder_model: torch.nn.Module
    ) -> tuple[Tensor, Tensor]:
        share = QueryShare.of_this_process(getattr(self.accuracy_calculator, "distributed", False))
        dataset: Any = dataloader.dataset
        parts = torch.arange(len(dataset)).tensor_split(share.num_processes)
        own = parts[share.rank].tolist()
        if len(own) < len(dataset):  # PML needs at least one image, so a process without a share drops one
            images = Subset(dataset, own or [0])
            dataloader = get_eval_dataloader(
                images, self.batch_size, self.dataloader_num_workers, dataloader.collate_fn
            )
        rows: tuple[Tensor, Tensor] = super().compute_all_embeddings(dataloader, trunk_model, embedder_model)
        if share.num_processes == 1:
            return rows
        sizes = [len(part) for part in parts]
        return gather_rows(rows[0][: len(own)], sizes), gather_rows(rows[1][: len(own)], sizes)

    def maybe_normalize(self, embeddings: Tensor) -> Tensor:
        normalized: Tensor = super().maybe_normalize(in_float32(embeddings))
        return normalized

    def maybe_combine_splits(self, embeddings_and_labels: Any, splits: Any) -> Any:
        # PML copies also a single split; the calculator recognises queries that are the references by identity.
        return (
            embeddings_and_labels[splits[0]]
            if len(splits) == 1
            else super().maybe_combine_splits(embeddings_and_labels, splits)
        )

    def label_levels_to_evaluate(self, query_labels: Tensor) -> list[slice]:
        return [slice(None)]

    def accuracies_keyname(self, metric: str, label_hierarchy_level: object = "all", average: bool = False) -> str:
        return metric


def _checked(getter: Callable[[Any], tuple[Any, Any]], batch: Any) -> tuple[Any, Any]:
    """Get images and labels from a batch, and check labels that are a tensor."""
    images, labels = getter(batch)
    return images, check_labels(labels) if isinstance(labels, Tensor) else labels
