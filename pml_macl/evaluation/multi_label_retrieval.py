"""The calculator as a metric of torchmetrics."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pml_macl.checks import check_batch, check_bool, check_embeddings, check_finite, check_instance, in_float32
from pml_macl.evaluation.multi_label_accuracy_calculator import MultiLabelAccuracyCalculator

try:
    from torchmetrics import Metric
except ModuleNotFoundError as error:
    _missing = str(error)

    class Metric(torch.nn.Module):  # type: ignore[no-redef]  # the class exists once at run time
        """Stands in for torchmetrics' class, so that this module can be imported."""

        def __init__(self, **_: Any) -> None:
            raise ImportError(
                f"MultiLabelRetrieval needs torchmetrics ({_missing}); install it: pip install torchmetrics"
            )


class MultiLabelRetrieval(Metric):
    """Compute the metrics of ``MultiLabelAccuracyCalculator`` as a ``torchmetrics.Metric``.

    The metric collects embeddings and labels batch by batch. ``compute`` gathers them from all processes and uses each
    row as a query against all other rows. Every process gets the same values. It needs torchmetrics (extra
    ``torchmetrics``).

    Args:
        accuracy_calculator: selects the metrics and how they are computed; None is a
            :class:`~pml_macl.evaluation.MultiLabelAccuracyCalculator` with its default settings.
        normalize_embeddings: whether to divide each embedding by its Euclidean norm, as PML's testers do.
        **kwargs: arguments of ``torchmetrics.Metric``, such as ``compute_on_cpu`` or ``sync_on_compute``.

    Raises:
        ImportError: torchmetrics is not installed.
        TypeError: ``accuracy_calculator`` or ``normalize_embeddings`` has the wrong type.

    Example:
        >>> metric = MultiLabelRetrieval(MultiLabelAccuracyCalculator(include=("mean_reciprocal_rank",)))
        >>> metric.update(torch.tensor([[1.0, 0.0], [1.0, 0.5]]), torch.tensor([[1, 1, 0], [0, 1, 1]]))
        >>> metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([[1, 0, 0]]))
        >>> metric.compute()
        {'mean_reciprocal_rank': tensor(0.8333, dtype=torch.float64)}
    """

    full_state_update = True  # a call then checks that the batch fits the earlier ones, before it changes the state
    embeddings: Any  # torchmetrics keeps a list of tensors, or one tensor while processes are synchronised
    labels: Any
    indices: Any

    def __init__(
        self,
        accuracy_calculator: MultiLabelAccuracyCalculator | None = None,
        normalize_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_instance(
            "accuracy_calculator", accuracy_calculator, MultiLabelAccuracyCalculator, "MultiLabelAccuracyCalculator"
        )
        check_bool("normalize_embeddings", normalize_embeddings)
        self.accuracy_calculator = accuracy_calculator or MultiLabelAccuracyCalculator()
        self.normalize_embeddings = normalize_embeddings
        for state in ("embeddings", "labels", "indices"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, embeddings: Tensor, labels: Tensor, indices: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            embeddings: (N, D) floating-point embeddings.
            labels: (N, C) multi-hot label sets.
            indices: (N,) positions of the rows in the data set, for all batches or none. Rows with the same position
                count once, and rows are ranked in the order of their positions.

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: a shape, dtype or value is wrong, or only some batches have ``indices``.
        """
        num_classes, size = (self.labels[0].shape[1], self.embeddings[0].shape[1]) if self.labels else (None, None)
        labels, _ = check_batch(embeddings, labels, num_classes=num_classes)
        check_embeddings(embeddings, size)
        check_finite("embeddings", embeddings)
        if self.labels and (indices is None) == bool(self.indices):
            raise ValueError(
                f"indices must be given for all batches or for none, got {'none' if indices is None else 'some'} after "
                f"batches {'with' if self.indices else 'without'} indices; pass them always, or call reset() first"
            )
        if indices is not None:
            is_integer = isinstance(indices, Tensor) and indices.dtype in (torch.int64, torch.int32)
            if not is_integer or indices.shape != labels.shape[:1]:
                found = f"{indices.dtype}, {tuple(indices.shape)}" if isinstance(indices, Tensor) else "no tensor"
                raise ValueError(
                    f"indices must be an integer tensor with one position per embedding ({len(labels)}), got {found}; "
                    "let the data set return the position with each image"
                )
            self.indices.append(indices.to(embeddings.device))
        self.embeddings.append(embeddings.detach())
        self.labels.append(labels)

    def compute(self) -> dict[str, Tensor]:
        """Compute the metrics of all rows.

        Returns:
            One float64 scalar per metric, or with ``return_per_class`` of the calculator a tensor with one value per
            class; NaN if no query has a relevant reference.

        Raises:
            ValueError: there are no rows, embeddings are not finite, or ``k`` of the calculator is too small for one of
                its metrics.
        """
        if len(self.labels) == 0:
            raise ValueError("compute() needs at least one batch, got none; call update(embeddings, labels) first")
        embeddings, labels, indices = map(_as_tensor, (self.embeddings, self.labels, self.indices))
        if len(indices):
            rows = _first_of_each(indices)
            embeddings, labels = embeddings[rows], labels[rows]
        if self.normalize_embeddings:
            embeddings = normalize(in_float32(embeddings))
        values = self.accuracy_calculator.get_accuracy(embeddings, labels)
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in values.items()}


def _as_tensor(state: list[Tensor] | Tensor) -> Tensor:
    return state if isinstance(state, Tensor) else torch.cat([*state]) if state else torch.empty(0)


def _first_of_each(indices: Tensor) -> Tensor:
    """Return the row of the first occurrence of each index, in ascending order of the indices."""
    ascending, rows = indices.sort(stable=True)
    return rows[torch.cat([ascending.new_ones(1, dtype=torch.bool), ascending[1:] != ascending[:-1]])]
