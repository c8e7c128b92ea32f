"""A sampler that puts rare labels into every batch."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

from pml_macl.labels import check_labels


class LabelBalancedSampler(Sampler[int]):
    r"""Batches in which every label, the rare ones too, appears as often as ``labels_per_batch`` allows.

    The multi-label counterpart of PML's ``MPerClassSampler``; the procedure is this package's. Each batch is balanced
    over ``labels_per_batch`` labels, which take turns: after each label has had its turn, all have had it equally
    often. The batch is then filled image by image, always with one that carries a label of which the batch holds
    fewest so far. An image counts for all of its labels, so common labels, which come along with others, take no place
    from rare ones. Each label :math:`l` that has its turn is then in at least

    .. math:: \min(n_l, \lfloor \text{batch_size} / \text{labels_per_batch} \rfloor)

    images of the batch, :math:`n_l` being the number of images that carry it. No image stands in a batch twice. The
    images of a label take turns too: all have been drawn for it, or have come along, before one is drawn for it again.

    The sampler yields indices batch after batch: give it as ``sampler`` to a PML trainer, or to a ``DataLoader``, of
    the same ``batch_size``. Its length is a multiple of ``batch_size``, so ``drop_last`` makes no difference.

    With ``every_image`` no image is dropped for a whole pass, not even one without labels: each batch starts with an
    equal share of a random permutation of all images, and the rest of it is balanced as above. The bound then has the
    size of that rest, :math:`\text{batch_size} - \lceil N \cdot \text{batch_size} / \text{length} \rceil`, in the place
    of ``batch_size``: a longer pass leaves more room, and with a length of N (rounded up) the sampler only shuffles.

    Args:
        labels: (N, C) multi-hot label sets of the images, in the order of the data set.
        batch_size: images a batch, from 1 to N.
        labels_per_batch: labels that a batch is balanced over, from 1 to the smaller of ``batch_size`` and the number
            of labels that occur; None takes as many as leave room for two images each, a positive pair.
        length_before_new_iter: images a pass, a positive multiple of ``batch_size``. None is N rounded down to one,
            and 2 N rounded up with ``every_image``.
        every_image: yield each image at least once a pass.
        generator: source of the randomness; None is torch's global generator, so ``torch.manual_seed`` decides.

    Raises:
        TypeError: ``labels`` is not a tensor, a number is not an integer, or another argument is of the wrong type.
        ValueError: a number is out of its range, or no image has a label.

    Example:
        >>> labels = torch.tensor([[1, 0]] * 6 + [[1, 1]] * 2)  # the second label is rare
        >>> sampler = LabelBalancedSampler(labels, batch_size=4)
        >>> batches = torch.tensor(list(sampler)).view(-1, 4)
        >>> labels[batches].sum(dim=1)
        tensor([[4, 2],
                [4, 2]])
    """

    def __init__(
        self,
        labels: Tensor,
        batch_size: int,
        labels_per_batch: int | None = None,
        length_before_new_iter: int | None = None,
        every_image: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        labels = check_labels(labels).cpu()
        num_images, num_columns = labels.shape
        # Lists rather than the table: the labels of each image, and the images of each label.
        labels_of: list[list[int]] = [[] for _ in range(num_images)]
        images_of: list[list[int]] = [[] for _ in range(num_columns)]
        for image, label in labels.nonzero().tolist():
            labels_of[image].append(label)
            images_of[label].append(image)
        num_labels = sum(bool(images) for images in images_of)
        if num_labels == 0:
            raise ValueError(f"labels must hold at least one label, got none in {num_images} images")
        if not isinstance(every_image, bool):
            raise TypeError(f"every_image must be True or False, got {every_image!r}")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator or None, got {type(generator).__name__}")
        _check_integer("batch_size", batch_size, num_images, "the number of images")
        most_labels = min(batch_size, num_labels)
        if labels_per_batch is None:
            labels_per_batch = min(max(batch_size // 2, 1), num_labels)
        _check_integer("labels_per_batch", labels_per_batch, most_labels, "batch_size, or the labels that occur")
        if length_before_new_iter is None:
            whole_batches = -(-2 * num_images // batch_size) if every_image else num_images // batch_size
            length_before_new_iter = whole_batches * batch_size
        _check_length(length_before_new_iter, batch_size, num_images if every_image else 1)
        self.batch_size = batch_size
        self.labels_per_batch = labels_per_batch
        self.length_before_new_iter = length_before_new_iter
        self.every_image = every_image
        self.generator = generator
        self.num_images = num_images
        self._labels_of = labels_of
        self._images_of = images_of

    def __len__(self) -> int:
        return self.length_before_new_iter

    def __iter__(self) -> Iterator[int]:
        # As torch's RandomSampler does: a pass has a generator of its own, seeded by one draw from the one outside.
        device = None if self.generator is None else self.generator.device
        seed = int(torch.empty((), dtype=torch.long, device=device).random_(generator=self.generator))
        generator = torch.Generator().manual_seed(seed)
        waiting: list[list[int]] = [[] for _ in self._images_of]  # the images whose turn is to come, for each label
        waiting_labels: list[int] = []
        everything, waiting_images = range(self.num_images), list[int]()
        for batch in self._shares(generator):
            labels = self._take_labels(waiting_labels, generator)
            self._balance(batch, labels, waiting, generator)
            while len(batch) < self.batch_size:  # it holds all images of these labels
                _take(waiting_images, everything, batch, generator)
            yield from batch

    def _shares(self, generator: torch.Generator) -> Iterator[dict[int, None]]:
        """What each batch starts with: its share of all images, or nothing."""
        num_batches = self.length_before_new_iter // self.batch_size
        order = _shuffled(range(self.num_images), generator) if self.every_image else []
        for number in range(num_batches):
            # Dictionaries as ordered sets.
            yield dict.fromkeys(order[len(order) * number // num_batches : len(order) * (number + 1) // num_batches])

    def _take_labels(self, waiting: list[int], generator: torch.Generator) -> list[int]:
        """The labels whose turn it is; those left over from the last round come before those of the next one."""
        if len(waiting) < self.labels_per_batch:
            left = set(waiting)
            next_round = _shuffled([label for label, images in enumerate(self._images_of) if images], generator)
            waiting += sorted(next_round, key=left.__contains__)  # no label twice in a batch
        labels = waiting[: self.labels_per_batch]
        del waiting[: self.labels_per_batch]
        return labels

    def _balance(
        self, batch: dict[int, None], labels: list[int], waiting: list[list[int]], generator: torch.Generator
    ) -> None:
        """Add images of the label that the batch holds fewest of, until it is full or holds all images of them."""
        counts = [0] * len(self._images_of)
        for image in batch:
            for label in self._labels_of[image]:
                counts[label] += 1
        fewest = 0
        while labels:
            # Every label here is in at least `fewest` images of the batch, and has more images than that.
            labels = [label for label in labels if len(self._images_of[label]) > fewest]
            for label in labels:
                if len(batch) == self.batch_size:
                    return
                if counts[label] == fewest:
                    image = _take(waiting[label], self._images_of[label], batch, generator)
                    for other in self._labels_of[image]:
                        counts[other] += 1
            fewest += 1


def _take(waiting: list[int], items: Sequence[int], batch: dict[int, None], generator: torch.Generator) -> int:
    """Put the next item that is not in the batch into it; when none waits, all items queue up anew."""
    while True:
        if not waiting:
            waiting += _shuffled(items, generator)
        item = waiting.pop()
        if item not in batch:
            batch[item] = None
            return item


def _shuffled(items: Sequence[int], generator: torch.Generator) -> list[int]:
    order = torch.randperm(len(items), generator=generator, device=generator.device)  # whatever the default device is
    return [items[index] for index in order.tolist()]


def _check_integer(name: str, value: int, largest: int, limit: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not 1 <= value <= largest:
        raise ValueError(f"{name} must be from 1 to {largest} ({limit}), got {value}")


def _check_length(length: int, batch_size: int, smallest: int) -> None:
    if not isinstance(length, int) or isinstance(length, bool):
        raise TypeError(f"length_before_new_iter must be an integer or None, got {length!r}")
    if length < 1 or length % batch_size:
        nearest = max(round(length / batch_size), 1) * batch_size
        raise ValueError(
            f"length_before_new_iter must be a positive multiple of batch_size ({batch_size}), got {length}; "
            f"take {nearest}"
        )
    if length < smallest:
        needed = -(-smallest // batch_size) * batch_size
        raise ValueError(
            f"length_before_new_iter must be at least {needed} for every_image to yield all {smallest} images, "
            f"got {length}"
        )
