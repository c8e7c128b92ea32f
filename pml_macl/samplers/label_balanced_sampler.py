"""A sampler that puts rare labels into every batch."""

from collections.abc import Iterator, Sequence, Sized

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, Sampler

from pml_macl.checks import check_bool, check_instance, check_integer
from pml_macl.labels import check_labels


class LabelBalancedSampler(Sampler[int]):
    r"""Builds batches that contain several images of each selected label, rare or frequent.

    This is a multi-label counterpart of PML's ``MPerClassSampler``. For each batch the sampler selects
    ``labels_per_batch`` labels; the labels take turns, so that all are selected equally often. It then adds one image
    after the other. Each new image has the selected label that is in the fewest images of the batch so far. An image
    counts for all of its labels, so a frequent label that comes along with others takes no places from rare ones. Each
    selected label :math:`l` is then in at least

    .. math:: \min(n_l, \lfloor \text{batch_size} / \text{labels_per_batch} \rfloor)

    images of the batch, where :math:`n_l` is the number of images with label :math:`l`. No image is in a batch twice.
    The images of a label take turns too: the sampler draws an image for a label again only after each other image of
    the label was drawn for it, or was already in the batch at its turn.

    Iterating yields single indices, batch after batch. Pass the sampler as ``sampler`` to a PML trainer or to a
    ``DataLoader``, with the same ``batch_size``. To set ``batch_sampler`` of a ``DataLoader``, pass :meth:`batches`.
    The length is a multiple of ``batch_size``, so ``drop_last`` changes nothing.

    The indices are rows of ``labels``. For a ``torch.utils.data.Subset``, pass the labels of the subset,
    ``labels[subset.indices]``. With the labels of the whole data set, the indices would be out of range for the subset
    or select the wrong images. Pass ``data_source=subset`` to check the number of labels.

    With ``every_image``, each pass contains every image, also images without labels. Each batch starts with an equal
    share of a random permutation of all images, and the sampler balances the remaining places as above. In the bound,
    ``batch_size`` is then replaced by the number of remaining places,
    :math:`\text{batch_size} - \lceil N \cdot \text{batch_size} / \text{length} \rceil`. A longer pass leaves more
    places; with a length of N (rounded up) the sampler only shuffles.

    With ``num_replicas`` and ``rank``, each process of a distributed training gets its part of every batch: the first
    process the first ``batch_size / num_replicas`` images, and so on. Together the processes see the batches that one
    process sees. Like torch's ``DistributedSampler``, the sampler then repeats a pass unless you call
    :meth:`set_epoch`.

    Args:
        labels: (N, C) multi-hot label sets of the images, in the order of the data set that the ``DataLoader`` reads.
        batch_size: number of images per batch, from 1 to N; with ``num_replicas``, of all processes together.
        labels_per_batch: number of labels to select for each batch, from 1 to ``batch_size`` and at most the number of
            labels that occur. None selects as many as leave room for two images (a positive pair) per label.
        length_before_new_iter: number of images per pass, a positive multiple of ``batch_size``. None takes N rounded
            down to a multiple, or 2 N rounded up if ``every_image``.
        every_image: whether each pass yields each image at least once.
        generator: source of the random numbers; None takes torch's global generator, which ``torch.manual_seed`` seeds.
        data_source: the data set that the ``DataLoader`` reads; its length must be N. None skips this check.
        num_replicas: number of processes, which must divide ``batch_size``. The random numbers then depend only on the
            epoch and on the seed that ``generator`` was created with (0 without a generator), which must be equal in
            all processes. None yields whole batches.
        rank: which of the processes this is, from 0 to ``num_replicas`` - 1; required with ``num_replicas``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number is out of range, no image has a label, ``data_source`` and ``labels`` differ in length, or
            only one of ``num_replicas`` and ``rank`` is given.

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
        data_source: Sized | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        labels = check_labels(labels).cpu()
        num_images, num_columns = labels.shape
        _check_data_source(data_source, num_images)
        # The labels of each image and the images of each label, as lists.
        labels_of: list[list[int]] = [[] for _ in range(num_images)]
        images_of: list[list[int]] = [[] for _ in range(num_columns)]
        for image, label in labels.nonzero().tolist():
            labels_of[image].append(label)
            images_of[label].append(image)
        num_labels = sum(bool(images) for images in images_of)
        if num_labels == 0:
            raise ValueError(f"labels must hold at least one label, got none in {num_images} images")
        check_bool("every_image", every_image)
        check_instance("generator", generator, torch.Generator, "a torch.Generator or None")
        _check_count("batch_size", batch_size, num_images, "the number of images")
        if labels_per_batch is None:
            labels_per_batch = min(max(batch_size // 2, 1), num_labels)
        _check_count("labels_per_batch", labels_per_batch, batch_size, "batch_size")
        _check_count("labels_per_batch", labels_per_batch, num_labels, "the number of labels that occur")
        if length_before_new_iter is None:
            whole_batches = -(-2 * num_images // batch_size) if every_image else num_images // batch_size
            length_before_new_iter = whole_batches * batch_size
        _check_length(length_before_new_iter, batch_size, num_images if every_image else 1)
        _check_replicas(num_replicas, rank, batch_size)
        self.num_replicas = 1 if num_replicas is None else num_replicas
        self.rank = 0 if rank is None else rank
        self.epoch = None if num_replicas is None else 0
        self.batch_size = int(batch_size)
        self.labels_per_batch = labels_per_batch
        self.length_before_new_iter = length_before_new_iter
        self.every_image = every_image
        self.generator = generator
        self.num_images = num_images
        self._labels_of = labels_of
        self._images_of = images_of

    def batches(self) -> BatchSampler:
        """Return the batches as lists of indices, for ``batch_sampler`` of a ``DataLoader``.

        A ``DataLoader`` expects whole batches from its ``batch_sampler``. If you pass this sampler itself, which yields
        single indices, the loader raises "'int' object is not iterable".

        Returns:
            A sampler that yields the batches; each iteration over it is a new pass.

        Example:
            >>> sampler = LabelBalancedSampler(torch.tensor([[1, 0], [0, 1], [1, 1]]), batch_size=3)
            >>> [sorted(batch) for batch in sampler.batches()]
            [[0, 1, 2]]
        """
        return BatchSampler(self, self.batch_size // self.num_replicas, drop_last=False)

    def set_epoch(self, epoch: int) -> None:
        """Choose the next pass.

        Its random numbers then depend only on ``epoch`` and the seed that ``generator`` was created with (0 without a
        generator).

        Args:
            epoch: number of the pass, >= 0; the same in all processes.

        Raises:
            TypeError: ``epoch`` is not an integer.
            ValueError: ``epoch`` is negative.
        """
        self.epoch = check_integer("epoch", epoch, 0)

    def __len__(self) -> int:
        return self.length_before_new_iter // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        size = self.batch_size // self.num_replicas
        for batch in self._joint_batches(torch.Generator().manual_seed(self._seed())):
            yield from batch[size * self.rank : size * (self.rank + 1)]

    def _seed(self) -> int:
        """Return the seed of this pass."""
        if self.epoch is not None:
            return self.epoch + (0 if self.generator is None else self.generator.initial_seed())
        # Like torch's RandomSampler, seed a generator for this pass with one draw from the outer generator.
        device = None if self.generator is None else self.generator.device
        return int(torch.empty((), dtype=torch.long, device=device).random_(generator=self.generator))

    def _joint_batches(self, generator: torch.Generator) -> Iterator[list[int]]:
        """Yield the batches of all processes together."""
        # For each label, the images that have not had their turn.
        waiting: list[list[int]] = [[] for _ in self._images_of]
        waiting_labels: list[int] = []
        everything, waiting_images = range(self.num_images), list[int]()
        for batch in self._shares(generator):
            labels = self._take_labels(waiting_labels, generator)
            self._balance(batch, labels, waiting, generator)
            while len(batch) < self.batch_size:  # the batch already holds all images of these labels
                _take(waiting_images, everything, batch, generator)
            yield list(batch)

    def _shares(self, generator: torch.Generator) -> Iterator[dict[int, None]]:
        """Yield the images that each batch starts with: its share of all images, or none without ``every_image``."""
        num_batches = self.length_before_new_iter // self.batch_size
        order = _shuffled(range(self.num_images), generator) if self.every_image else []
        for number in range(num_batches):
            # Dictionaries as ordered sets.
            yield dict.fromkeys(order[len(order) * number // num_batches : len(order) * (number + 1) // num_batches])

    def _take_labels(self, waiting: list[int], generator: torch.Generator) -> list[int]:
        """Return the labels whose turn it is; labels left over from the last round come first."""
        if len(waiting) < self.labels_per_batch:
            left = set(waiting)
            next_round = _shuffled([label for label, images in enumerate(self._images_of) if images], generator)
            waiting += sorted(next_round, key=left.__contains__)  # so that no label is in one batch twice
        labels = waiting[: self.labels_per_batch]
        del waiting[: self.labels_per_batch]
        return labels

    def _balance(
        self, batch: dict[int, None], labels: list[int], waiting: list[list[int]], generator: torch.Generator
    ) -> None:
        """Add images of the label with the fewest images in the batch, until it is full or holds all their images."""
        counts = [0] * len(self._images_of)
        for image in batch:
            for label in self._labels_of[image]:
                counts[label] += 1
        fewest = 0
        while labels:
            # Each of these labels is in at least `fewest` images of the batch. Drop those without further images.
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
    """Add the next waiting item that is not in the batch; when none is waiting, let all items wait again."""
    while True:
        if not waiting:
            waiting += _shuffled(items, generator)
        item = waiting.pop()
        if item not in batch:
            batch[item] = None
            return item


def _shuffled(items: Sequence[int], generator: torch.Generator) -> list[int]:
    # The device is set because the default device may be another one.
    order = torch.randperm(len(items), generator=generator, device=generator.device)
    return [items[index] for index in order.tolist()]


def _check_data_source(data_source: Sized | None, num_images: int) -> None:
    if data_source is None:
        return
    if not hasattr(data_source, "__len__"):
        raise TypeError(f"data_source must be a data set with a length, got {type(data_source).__name__}")
    if len(data_source) != num_images:
        raise ValueError(
            f"labels must have one row per image of data_source ({len(data_source)}), got {num_images} rows; for a "
            "torch.utils.data.Subset, pass labels[subset.indices]"
        )


def _check_replicas(num_replicas: int | None, rank: int | None, batch_size: int) -> None:
    if (num_replicas is None) != (rank is None):
        given, missing = ("rank", "num_replicas") if num_replicas is None else ("num_replicas", "rank")
        raise ValueError(f"{given} was given without {missing}; give both or neither")
    if num_replicas is None or rank is None:
        return
    check_integer("num_replicas", num_replicas)
    check_integer("rank", rank, 0)
    if rank >= num_replicas:
        raise ValueError(f"rank must be below num_replicas ({num_replicas}), got {rank}")
    if batch_size % num_replicas:
        raise ValueError(
            f"batch_size, the images of all processes together, must be a multiple of num_replicas ({num_replicas}), "
            f"got {batch_size}"
        )


def _check_count(name: str, value: int, largest: int, limit: str) -> None:
    check_integer(name, value)
    if value > largest:
        raise ValueError(f"{name} must be at most {largest} ({limit}), got {value}")


def _check_length(length: int, batch_size: int, smallest: int) -> None:
    check_integer("length_before_new_iter", length)
    if length % batch_size:
        nearest = max(round(length / batch_size), 1) * batch_size
        raise ValueError(
            f"length_before_new_iter must be a multiple of batch_size ({batch_size}), got {length}; take {nearest}"
        )
    if length < smallest:
        needed = -(-smallest // batch_size) * batch_size
        raise ValueError(
            f"length_before_new_iter must be at least {needed} for every_image to yield all {smallest} images, "
            f"got {length}"
        )
