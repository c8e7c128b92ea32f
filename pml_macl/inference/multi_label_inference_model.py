"""PML's inference model for images with label sets."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_metric_learning.utils.inference import FaissKNN, InferenceModel
from torch import Tensor
from torch.utils.data import Dataset

from pml_macl.checks import check_callable, check_finite, check_integer, check_path
from pml_macl.inference.augmentation import augment_embeddings
from pml_macl.inference.batches import batches_of
from pml_macl.inference.faiss_import import import_faiss
from pml_macl.inference.labelled_index import LabelledIndex
from pml_macl.inference.search_results import SearchResults
from pml_macl.labels import check_labels


class MultiLabelInferenceModel(InferenceModel):
    r"""Searches an archive of images by example, with filters on labels, and predicts labels from the nearest images.

    It is PML's ``InferenceModel`` with ids and label sets; PML's methods stay. An image's embedding is
    ``embedder(trunk(image))``, normalised. For embeddings that you have already, pass ``torch.nn.Identity()`` as trunk.

    Args:
        trunk: network from images to features.
        embedder: network from features to embeddings; None passes the features on.
        classes: names of the C label columns, so that filters can name them; None allows column numbers only.
        data_and_label_getter: takes a batch of a data set and returns its images and labels, as in PML's trainers and
            testers; None takes batches of images or of (images, label sets).
        **kwargs: for PML's ``InferenceModel``: ``normalize_embeddings``, ``data_device``, ``dtype``, ``match_finder``,
            and ``knn_func``, a ``FaissKNN(index_init_fn=..., reset_before=False, reset_after=False)``. The default is
            exact search by squared Euclidean distance (``faiss.IndexFlatL2``).

    Raises:
        ImportError: faiss is not installed, or two packages that provide it are.
        TypeError: ``knn_func`` is not a ``FaissKNN``, ``classes`` is not a sequence of strings, or
            ``data_and_label_getter`` cannot be called.
        ValueError: ``knn_func`` resets its index on each call, or a class name occurs twice.

    Example:
        >>> model = MultiLabelInferenceModel(torch.nn.Identity(), classes=["river", "ship"])
        >>> images = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> model.index(images, labels=torch.tensor([[1, 0], [1, 1], [0, 1]]), ids=["a.png", "b.png", "c.png"])
        ['a.png', 'b.png', 'c.png']
        >>> model.search(images[:1], k=2)[0].ids
        ['a.png', 'b.png']
        >>> model.search(images[:1], k=2, having=["ship"])[0].ids
        ['b.png', 'c.png']
        >>> model.predict_labels(torch.tensor([[1.0, 0.1]]), k=2)
        tensor([[1.0000, 0.1565]])
    """

    knn_func: FaissKNN

    def __init__(
        self,
        trunk: torch.nn.Module,
        embedder: torch.nn.Module | None = None,
        classes: Sequence[str] | None = None,
        data_and_label_getter: Callable[[Any], tuple[Any, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        import_faiss()
        knn_func = kwargs.get("knn_func")
        if knn_func is not None and not isinstance(knn_func, FaissKNN):
            raise TypeError(f"knn_func must be PML's FaissKNN, got {type(knn_func).__name__}")
        if knn_func is not None and (knn_func.reset_before or knn_func.reset_after):
            raise ValueError(
                "knn_func must keep its index; construct it with FaissKNN(reset_before=False, reset_after=False)"
            )
        check_callable("data_and_label_getter", data_and_label_getter)
        super().__init__(trunk, embedder, **kwargs)
        self.data_and_label_getter = data_and_label_getter
        self.classes = None if classes is None else check_classes(classes)
        self.entries = LabelledIndex(self.knn_func)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, image_id: Any) -> bool:
        return image_id in self.entries

    @property
    def ids(self) -> list[int] | list[str]:
        """The ids of all indexed images, in the order in which they were added."""
        return list(self.entries.ids)

    @property
    def labels(self) -> Tensor | None:
        """(n, C) boolean label sets of all indexed images, or None."""
        return self.entries.labels

    def index(
        self,
        images: Tensor | NDArray[Any] | list[Tensor] | Dataset[Any],
        labels: Tensor | None = None,
        ids: Sequence[int] | Sequence[str] | None = None,
        batch_size: int = 64,
        augment_k: int = 0,
    ) -> list[int] | list[str]:
        """Embed images and add them to the index.

        If anything raises, the index stays as it was.

        Args:
            images: (N, ...) images as the trunk takes them: a tensor, a NumPy array (also memory-mapped), a list of
                tensors, or a data set of images or of (image, label set) pairs. For other items, such as dictionaries,
                pass ``data_and_label_getter`` to the constructor.
            labels: (N, C) multi-hot label sets; None takes those of the data set, if it has any.
            ids: N unique integers, or N unique strings or paths; None counts on from 0.
            batch_size: number of images that are embedded at once.
            augment_k: number of neighbours for :func:`~pml_macl.inference.augment_embeddings`, which is applied among
                the images of this call; 0 leaves the embeddings as they are. It needs ``normalize_embeddings=True``.

        Returns:
            The ids of the images.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: labels, ids and images do not fit each other or the index, or an embedding is not finite.
        """
        augment_k = check_integer("augment_k", augment_k, low=0)
        if augment_k and not self.normalize_embeddings:
            raise ValueError(
                f"augment_k must be 0 with normalize_embeddings=False, got {augment_k}, because augmented embeddings "
                "have length 1"
            )
        num_images = len(images) if hasattr(images, "__len__") else None
        num_classes = None if self.classes is None else len(self.classes)
        if ids is not None:
            self.entries.check_ids(num_images, ids)
        if labels is not None:
            labels = check_labels(labels, num_images, num_classes).cpu()
            self.entries.check_new(num_images, labels, ids)
        vectors, sample_labels = self._embed(images, batch_size)
        if labels is None and sample_labels is not None:
            labels = check_labels(sample_labels, len(vectors), num_classes).cpu()
        if augment_k:
            vectors = augment_embeddings(torch.from_numpy(vectors), augment_k).numpy()
        return self.entries.add(vectors, labels, ids)

    def remove(self, ids: Sequence[int] | Sequence[str]) -> None:
        """Remove images from the index.

        Args:
            ids: ids of indexed images.

        Raises:
            ValueError: an id is not in the index, or faiss cannot remove from this kind of index.
        """
        self.entries.remove(ids)

    def search(
        self,
        query: Tensor | NDArray[Any] | list[Tensor] | Dataset[Any],
        k: int = 10,
        having: Sequence[str] | Sequence[int] = (),
        lacking: Sequence[str] | Sequence[int] = (),
        query_ids: Sequence[int] | Sequence[str] | None = None,
        batch_size: int = 64,
    ) -> list[SearchResults]:
        """The nearest indexed images of each query.

        Filters are exact with the default index: faiss searches among the images that pass, and nowhere else.

        Args:
            query: (Q, ...) query images, as for :meth:`index`.
            k: number of images to find, >= 1.
            having: labels, by name or column number, that each result must have.
            lacking: labels that no result may have.
            query_ids: if the queries are indexed themselves, their Q ids; each query leaves itself out.
            batch_size: number of queries that are embedded at once.

        Returns:
            One :class:`~pml_macl.inference.SearchResults` per query.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: the index is empty, has no labels to filter by, or an argument does not fit it.
        """
        distances, positions = self._nearest(query, k, having, lacking, query_ids, batch_size)
        counts, rows = (positions >= 0).sum(axis=1).tolist(), torch.from_numpy(positions)
        found = torch.from_numpy(distances).unbind()
        labels = [None] * len(rows) if self.labels is None else self.labels[rows.clamp(min=0)].unbind()
        results = []
        for row, (count, where) in enumerate(zip(counts, positions.tolist(), strict=True)):
            label_sets = labels[row]
            results.append(
                SearchResults(
                    [self.entries.ids[i] for i in where[:count]],
                    found[row][:count],
                    None if label_sets is None else label_sets[:count],
                )
            )
        return results

    def predict_labels(
        self,
        query: Tensor | NDArray[Any] | list[Tensor] | Dataset[Any],
        k: int = 10,
        query_ids: Sequence[int] | Sequence[str] | None = None,
        batch_size: int = 64,
    ) -> Tensor:
        r"""Share of each label among the nearest indexed images, weighted by inverse distance.

        .. math:: p_{qc} = \sum_{j \in \text{kNN}(q)} y_{jc} / d_{qj} \;\Big/ \sum_{j \in \text{kNN}(q)} 1 / d_{qj}

        with Euclidean distances :math:`d`. If some neighbours are at distance 0, only they vote. These are the
        probabilities of scikit-learn's ``KNeighborsClassifier(weights="distance")`` (Dudani, 1976).

        Args:
            query: (Q, ...) query images, as for :meth:`index`.
            k: number of images that vote, >= 1.
            query_ids: as for :meth:`search`.
            batch_size: number of queries that are embedded at once.

        Returns:
            (Q, C) scores in [0, 1], float32; 0 for a query that finds no image.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: the index is empty or has no labels, or its inner products are no distances because embeddings
                are not normalised.
        """
        found, positions = self._nearest(query, k, (), (), query_ids, batch_size)
        if self.labels is None:
            raise ValueError("predict_labels needs labels; pass them to index()")
        rows, distances = torch.from_numpy(positions), self._euclidean(torch.from_numpy(found))
        weights = torch.where(distances == 0, torch.inf, 1 / distances).masked_fill(rows < 0, 0)
        exact = weights.isinf().any(dim=1, keepdim=True)
        weights = torch.where(exact, weights.isinf().float(), weights)
        weights /= weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
        return torch.bmm(weights[:, None], self.labels[rows].float())[:, 0]

    def save(self, folder: str | Path) -> None:
        """Write the index, ids, label sets and class names to a folder; the networks are not saved.

        An index that the folder holds is replaced. Nothing is pickled.

        Args:
            folder: a folder, made if it does not exist.

        Raises:
            ValueError: nothing is indexed, or the folder holds other files.
        """
        check_path("folder", folder)
        self.entries.save(Path(folder), self.classes)

    def load(self, folder: str | Path) -> None:
        """Read the index, ids, label sets and class names that :meth:`save` wrote; they replace those of the model.

        Args:
            folder: the folder. Its embeddings must come from the same networks as those of this model.

        Raises:
            ValueError: the folder does not hold an index, or its classes are not those of the model.
        """
        check_path("folder", folder)
        loaded = LabelledIndex(FaissKNN(reset_before=False, reset_after=False))
        classes = loaded.load(Path(folder))
        if self.classes is not None and classes is not None and classes != self.classes:
            raise ValueError(
                f"folder {folder} has the classes {classes}, the model {self.classes}; load it into a new model"
            )
        self.classes = self.classes if classes is None else classes
        self.entries.take(loaded)

    def train_knn(self, inputs: Any, batch_size: int = 64) -> None:
        self.entries.reset()
        self.add_to_knn(inputs, batch_size)

    def add_to_knn(self, inputs: Any, batch_size: int = 64) -> None:
        self.entries.add(self._embed(inputs, batch_size)[0], None, None)

    def _nearest(
        self, query: Any, k: int, having: Any, lacking: Any, query_ids: Any, batch_size: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        k = check_integer("k", k)
        allowed = self._allowed(having, lacking)
        own = None if query_ids is None else self.entries.keys_of(query_ids, "query_ids")
        vectors, _ = self._embed(query, batch_size)
        if own is not None and len(own) != len(vectors):
            raise ValueError(f"query_ids must hold one id per query ({len(vectors)}), got {len(own)}")
        return self.entries.search(vectors, k, allowed, own)

    def _allowed(self, having: Any, lacking: Any) -> Tensor | None:
        """(n,) boolean: the entries that pass the filters, or None if there are none."""
        columns = {name: self._columns(name, value) for name, value in (("having", having), ("lacking", lacking))}
        if not any(columns.values()):
            return None
        if self.labels is None:
            raise ValueError("having and lacking need labels; pass them to index()")
        return self.labels[:, columns["having"]].all(dim=1) & ~self.labels[:, columns["lacking"]].any(dim=1)

    def _columns(self, name: str, chosen: Any) -> list[int]:
        columns = []
        for value in [chosen] if isinstance(chosen, (str, int)) else chosen:
            if isinstance(value, str):
                if value not in (self.classes or []):
                    known = ", ".join(self.classes) if self.classes else "none; pass classes= or give column numbers"
                    raise ValueError(f"{name} must hold names of classes, got {value!r}; the classes are: {known}")
                columns.append((self.classes or []).index(value))
            else:
                value = check_integer(f"a column number in {name}", value, low=0)
                num_classes = 0 if self.labels is None else self.labels.shape[1]
                if self.labels is not None and value >= num_classes:
                    raise ValueError(f"{name} must hold columns below {num_classes}, got {value}")
                columns.append(value)
        return columns

    def _euclidean(self, distances: Tensor) -> Tensor:
        """Euclidean distances from what the index measures."""
        faiss = import_faiss()
        metric = self.knn_func.index.metric_type
        if metric == faiss.METRIC_INNER_PRODUCT and self.normalize_embeddings:
            distances = 2 - 2 * distances
        elif metric != faiss.METRIC_L2:
            raise ValueError("predict_labels needs an L2 index, or an inner-product index of normalised embeddings")
        return distances.clamp(min=0).sqrt()

    def _embed(self, images: Any, batch_size: int) -> tuple[NDArray[np.float32], Tensor | None]:
        """(N, D) embeddings in float32, and the labels of a data set."""
        from tqdm import tqdm  # PML requires it

        batch_size = check_integer("batch_size", batch_size)
        vectors, labels = [], []
        batches = batches_of(images, batch_size, self.data_and_label_getter)
        for batch, batch_labels in tqdm(batches, "embedding", leave=False, disable=None):
            embeddings = self.get_embeddings(batch).float().cpu()
            check_finite("the embeddings of the images", embeddings)
            vectors.append(embeddings.numpy())
            if batch_labels is not None:
                labels.append(batch_labels)
        if not vectors:
            index = self.knn_func.index
            return np.empty((0, 0 if index is None else index.d), np.float32), None
        return np.concatenate(vectors), torch.cat(labels) if labels else None


def check_classes(classes: Sequence[str]) -> list[str]:
    """The names as a list; raises unless they are strings that differ."""
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise TypeError(f"classes must be a sequence of names, got {classes!r}")
    if len(set(classes)) < len(classes):
        raise ValueError("classes must be unique names; a name occurs twice")
    return list(classes)
