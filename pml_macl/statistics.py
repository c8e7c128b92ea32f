"""Label frequencies and co-occurrences of a data set."""

import torch
from torch import Tensor, nn

from pml_macl.checks import check_bool, check_integer
from pml_macl.labels import check_labels, count_product

_ROWS_EXACT_IN_FLOAT32 = 2**24


class LabelStatistics(nn.Module):
    r"""Counts the images with each label and with each pair of labels.

    The counts are integer buffers. They move with ``.to()``, ``state_dict`` contains them, and they have no rounding
    errors.

    In distributed training, each process counts its own images. With ``synchronize=True``, each ``update`` adds the
    counts of all processes (of the default group of ``torch.distributed``, if it is initialised), so every process has
    the counts of all images. All processes must then call ``update`` equally often, with the buffers on a device that
    the backend can reduce. Keep ``synchronize=False`` if every process already receives the labels of all images, as
    in ``MultiLabelDistributedLossWrapper`` and PML's ``DistributedLossWrapper``.

    Args:
        num_classes: number of classes C, >= 1.
        synchronize: sum the counts of each update over all processes. You can also set it later, for example on the
            statistics that a loss has created: ``loss.label_statistics.synchronize = True``.
        device: device of the counts; None uses torch's default device.

    Attributes:
        num_samples: () int64, number of images counted so far.
        counts: (C,) int64, number of images with each label, :math:`n_l`.
        cooccurrence: (C, C) int64, number of images with both labels, :math:`n_{lm}`; the diagonal is ``counts``.

    Raises:
        TypeError: ``num_classes`` is not an integer or ``synchronize`` is not a bool.
        ValueError: ``num_classes`` is below 1.

    Example:
        >>> statistics = LabelStatistics.from_labels(torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]]))
        >>> statistics.counts
        tensor([3, 2, 1])
        >>> statistics.label_rarity()
        tensor([0.0000, 0.3691, 1.0000], dtype=torch.float64)
    """

    num_samples: Tensor
    counts: Tensor
    cooccurrence: Tensor

    def __init__(self, num_classes: int, synchronize: bool = False, device: torch.device | str | None = None) -> None:
        super().__init__()
        check_integer("num_classes", num_classes)
        check_bool("synchronize", synchronize)
        self.num_classes = int(num_classes)
        self.synchronize = synchronize
        self.register_buffer("num_samples", torch.zeros((), dtype=torch.long, device=device))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.long, device=device))
        self.register_buffer("cooccurrence", torch.zeros((num_classes, num_classes), dtype=torch.long, device=device))

    @classmethod
    def from_labels(cls, labels: Tensor, synchronize: bool = False) -> "LabelStatistics":
        """Count a whole set of (N, C) multi-hot labels; the statistics are on the device of the labels."""
        return cls.from_checked_labels(check_labels(labels), synchronize)

    @classmethod
    def from_checked_labels(cls, labels: Tensor, synchronize: bool = False) -> "LabelStatistics":
        """Count (N, C) boolean label sets that :func:`~pml_macl.check_labels` has already checked."""
        statistics = cls(labels.shape[1], synchronize, labels.device)
        statistics._add(labels)
        return statistics

    def update(self, labels: Tensor) -> None:
        """Count more images.

        Args:
            labels: (N, C) multi-hot label sets.

        Raises:
            TypeError, ValueError: as :func:`~pml_macl.labels.check_labels`; the counts then stay unchanged.
        """
        self._add(check_labels(labels, num_classes=self.num_classes))

    @torch.no_grad()
    def _add(self, labels: Tensor) -> None:
        labels = labels.to(self.counts.device)
        cooccurrence = torch.zeros_like(self.cooccurrence)
        for rows in torch.split(labels, _ROWS_EXACT_IN_FLOAT32):
            cooccurrence += count_product(rows.T, rows).long()
        num_samples = torch.full_like(self.num_samples, labels.shape[0])
        if self.synchronize:
            cooccurrence, num_samples = _sum_over_processes(cooccurrence, num_samples)
        self.cooccurrence += cooccurrence
        self.counts.copy_(self.cooccurrence.diagonal())
        self.num_samples += num_samples

    def label_rarity(self, dtype: torch.dtype = torch.float64) -> Tensor:
        r"""Compute the logarithmic rarity of each label: 0 for the most frequent label and 1 for the rarest.

        .. math:: \log(n_{max} / n_l) / \log(n_{max} / n_{min})

        A label without images counts as if it had one. If all labels are equally frequent, every rarity is 0.

        Args:
            dtype: floating-point type of the computation and of the result.

        Returns:
            (C,) rarities in [0, 1].
        """
        rarity = self.inverse_frequency(dtype).log()
        rarest = rarity.max()
        return torch.where(rarest > 0, rarity / rarest, 0.0)

    def inverse_frequency(self, dtype: torch.dtype = torch.float64) -> Tensor:
        r"""Compute :math:`n_{max} / n_l` of each label, (C,); a label without images counts as if it had one."""
        counts = self.counts.clamp(min=1)
        return counts.max().to(dtype) / counts.to(dtype)

    def inverse_cooccurrence(self, dtype: torch.dtype = torch.float64) -> Tensor:
        r"""Compute :math:`n_{max} / n_{lm}` of each pair of labels, (C, C); a pair without images counts as one."""
        return self.counts.max().clamp(min=1).to(dtype) / self.cooccurrence.clamp(min=1).to(dtype)

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, synchronize={self.synchronize}"


def check_statistics(label_statistics: LabelStatistics | None) -> None:
    """Raise unless ``label_statistics`` is a :class:`LabelStatistics` or None."""
    if label_statistics is not None and not isinstance(label_statistics, LabelStatistics):
        raise TypeError(
            f"label_statistics must be a LabelStatistics, got {type(label_statistics).__name__}; create it with "
            "LabelStatistics.from_labels(train_labels)"
        )


def _sum_over_processes(cooccurrence: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the counts summed over all processes; without ``torch.distributed``, return them unchanged."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        counts = torch.cat([cooccurrence.flatten(), num_samples[None]])
        torch.distributed.all_reduce(counts)
        cooccurrence, num_samples = counts[:-1].view_as(cooccurrence), counts[-1]
    return cooccurrence, num_samples
