"""PML's tester for multi-hot labels."""

from typing import Any

from pytorch_metric_learning.testers import GlobalEmbeddingSpaceTester
from torch import Tensor

from pml_macl.evaluation import MultiLabelAccuracyCalculator


class MultiLabelEmbeddingSpaceTester(GlobalEmbeddingSpaceTester):
    """Evaluate a model on multi-hot labels, in place of PML's ``GlobalEmbeddingSpaceTester``.

    PML's testers treat each label column as a level of a hierarchy and evaluate each level separately. This tester
    passes all columns to the accuracy calculator as one label set per image. It records each metric under its plain
    name (``ndcg``, not ``ndcg_level0``), so that PML's ``HookContainer`` accepts the name as ``primary_metric``.

    Args:
        *args: arguments of PML's tester, in its order.
        label_hierarchy_level: must be ``"all"``, because the columns are one label set.
        **kwargs: arguments of PML's tester: ``normalize_embeddings``, ``batch_size``, ``dataloader_num_workers``, ...
            If ``accuracy_calculator`` is None, the tester creates a
            :class:`~pml_macl.evaluation.MultiLabelAccuracyCalculator` with its default settings.

    Raises:
        ValueError: ``label_hierarchy_level`` is not ``"all"``.

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

    def __init__(self, *args: Any, label_hierarchy_level: str = "all", **kwargs: Any) -> None:
        if label_hierarchy_level != "all":
            raise ValueError(
                "label_hierarchy_level must be 'all', because the columns of multi-hot labels are one label set, "
                f"got {label_hierarchy_level!r}; leave it out"
            )
        super().__init__(*args, label_hierarchy_level=label_hierarchy_level, **kwargs)

    def initialize_accuracy_calculator(self) -> None:
        if self.accuracy_calculator is None:
            self.accuracy_calculator = MultiLabelAccuracyCalculator()

    def label_levels_to_evaluate(self, query_labels: Tensor) -> list[slice]:
        return [slice(None)]

    def accuracies_keyname(self, metric: str, label_hierarchy_level: object = "all", average: bool = False) -> str:
        return metric
