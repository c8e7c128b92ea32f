"""A faiss index whose entries have ids and label sets."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_metric_learning.utils.inference import FaissKNN, convert_to_gpu_index
from torch import Tensor

from pml_macl.inference.faiss_import import import_faiss

FORMAT = 1
MAX_K_ON_GPU = 2048
FILES = ("index.faiss", "keys.npy", "labels.npy", "index.json")


class LabelledIndex:
    """What a :class:`~pml_macl.inference.MultiLabelInferenceModel` searches: vectors, ids and label sets.

    Each entry has a **key**, the number by which faiss returns it. Keys ascend, so that bisection finds the position of
    an entry in ``ids`` and ``labels``. An index that takes keys (IVF, ``IndexIDMap``) keeps them. Any other index
    counts its vectors from 0, and counts them anew after a removal.

    Args:
        knn_func: PML's ``FaissKNN``; its ``index_init_fn`` makes the index, and its ``index`` holds it.

    Attributes:
        ids: the ids, all integers or all strings.
        keys: (n,) the keys, ascending.
        labels: (n, C) boolean label sets, or None.
    """

    def __init__(self, knn_func: FaissKNN) -> None:
        self.knn_func = knn_func
        self.reset()

    def reset(self) -> None:
        """Remove all entries."""
        self._set(None, [], np.empty(0, np.int64), None, 0)

    def take(self, other: "LabelledIndex") -> None:
        """Replace all entries by those of another index."""
        self._set(other.knn_func.index, other.ids, other.keys, other.labels, other.next_id)

    def _set(self, index: Any, ids: list[Any], keys: NDArray[np.int64], labels: Tensor | None, next_id: int) -> None:
        self.knn_func.index = index
        self.ids, self.keys, self.labels, self.next_id = ids, keys, labels, next_id
        self._key_of = dict(zip(ids, keys.tolist(), strict=True))
        self._on_gpu: Any = None

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, entry_id: Any) -> bool:
        return entry_id in self._key_of

    def check_new(self, num_entries: int | None, labels: Tensor | None, ids: Sequence[Any] | None) -> list[Any] | None:
        """Raise unless entries with these labels and ids can be added; returns the ids as integers or strings."""
        if len(self) and (labels is None) != (self.labels is None):
            has = "no labels" if self.labels is None else "labels"
            raise ValueError(f"labels must be given for all images or for none; the images in the index have {has}")
        if len(self) and labels is not None and self.labels is not None and labels.shape[1] != self.labels.shape[1]:
            raise ValueError(f"labels must have {self.labels.shape[1]} columns as in the index, got {labels.shape[1]}")
        return self.check_ids(num_entries, ids)

    def check_ids(self, num_entries: int | None, ids: Sequence[Any] | None) -> list[Any] | None:
        """Raise unless entries with these ids can be added; returns the ids as integers or strings."""
        if isinstance(ids, str):
            raise TypeError(f"ids must be a sequence of integers, strings or paths, got the text {ids!r}")
        if ids is None:
            if len(self) and isinstance(self.ids[0], str):
                raise ValueError("ids must be given, since the images that are indexed already have strings for ids")
            return None
        new = [as_id(value) for value in (ids.tolist() if isinstance(ids, (Tensor, np.ndarray)) else ids)]
        if num_entries is not None and len(new) != num_entries:
            raise ValueError(f"ids must hold one id per image ({num_entries}), got {len(new)}")
        kinds = {type(value) for value in new + self.ids[:1]}
        if len(kinds) > 1:
            raise TypeError("ids must be all integers or all strings, as those of the index; got both")
        known = [value for value in new if value in self._key_of]
        if known or len(set(new)) < len(new):
            what = f"{known[0]!r} is in the index already; remove it first" if known else "an id occurs twice"
            raise ValueError(f"ids must be unique; {what}")
        return new

    def add(self, vectors: NDArray[np.float32], labels: Tensor | None, ids: Sequence[Any] | None) -> list[Any]:
        """Add vectors with their label sets and ids; returns the ids."""
        new_ids = self.check_new(len(vectors), labels, ids)
        if not len(vectors):
            return []
        if new_ids is None:
            new_ids = list(range(self.next_id, self.next_id + len(vectors)))
            if not self._key_of.keys().isdisjoint(new_ids):
                raise ValueError("ids must be given: the running number that would be next is in the index already")
        index = self.knn_func.index
        if index is None:
            index = self.knn_func.index_init_fn(vectors.shape[1])
            if not index.is_trained:
                index.train(vectors)
        if vectors.shape[1] != index.d:
            raise ValueError(f"embeddings must have the size {index.d} as in the index, got {vectors.shape[1]}")
        first = self.keys[-1] + 1 if len(self) else 0
        keys = np.arange(first, first + len(vectors))
        if labels is not None:
            before = self.labels if len(self) else None
            labels = labels.cpu() if before is None else torch.cat([before, labels.cpu()])
        if takes_keys(index):
            index.add_with_ids(vectors, keys)
        else:
            index.add(vectors)
        self.knn_func.index, self.labels, self._on_gpu = index, labels, None
        self.ids += new_ids
        self._key_of.update(zip(new_ids, keys.tolist(), strict=True))
        self.keys = np.concatenate([self.keys, keys])
        self.next_id += len(vectors)
        return new_ids

    def keys_of(self, ids: Sequence[Any], name: str) -> NDArray[np.int64]:
        """Keys of entries; ValueError names the first id that is not in the index."""
        values = [as_id(value) for value in (ids.tolist() if isinstance(ids, (Tensor, np.ndarray)) else ids)]
        unknown = [value for value in values if value not in self._key_of]
        if unknown:
            raise ValueError(f"{name} must hold ids of the index, got {unknown[0]!r}")
        return np.array([self._key_of[value] for value in values], np.int64)

    def remove(self, ids: Sequence[Any]) -> None:
        """Remove entries by id."""
        removed = self.keys_of(ids, "ids")
        index = self.knn_func.index
        try:
            if len(removed):
                index.remove_ids(removed)
        except RuntimeError as error:
            raise ValueError(
                f"faiss cannot remove vectors from {type(inner_index(index)).__name__}; use a flat or an IVF index"
            ) from error
        positions = np.flatnonzero(~np.isin(self.keys, removed))
        keys = self.keys[positions] if takes_keys(index) else np.arange(len(positions))
        labels = None if self.labels is None else self.labels[torch.from_numpy(positions)]
        self._set(index, [self.ids[i] for i in positions.tolist()], keys, labels, self.next_id)

    def search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        allowed: Tensor | None = None,
        own: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The nearest entries of each vector.

        Args:
            vectors: (Q, D) queries.
            k: number of entries to find.
            allowed: (n,) boolean: the entries to choose from, or None for all.
            own: (Q,) key of the entry that each query leaves out, or None.

        Returns:
            (Q, k) distances and positions in ``ids`` and ``labels``, nearest first. Where fewer than k entries are
            found, the row ends with positions of -1.
        """
        index = self.knn_func.index
        if not len(self) or index is None:
            raise ValueError("the index is empty; call index() with the images to search")
        if index.ntotal != len(self):
            raise ValueError(
                f"the faiss index holds {index.ntotal} vectors and not the {len(self)} that were indexed; "
                "change it with index(), remove() and load() only"
            )
        if vectors.shape[1] != index.d:
            raise ValueError(f"queries must have the embedding size of the index, {index.d}, got {vectors.shape[1]}")
        wanted = k + (own is not None)
        if allowed is None:
            distances, keys = self._fastest(index, wanted).search(vectors, min(wanted, len(self)))
        else:
            selected = self.keys[allowed.numpy()]
            # faiss.contrib.torch_utils, which PML imports, replaces search() by one without parameters.
            search = getattr(index, "search_numpy", index.search)
            distances, keys = search(vectors, max(min(wanted, len(selected)), 1), params=only(index, selected))
        if own is not None:
            distances, keys = without(distances, keys, own, k)
        return distances, np.where(keys < 0, -1, np.searchsorted(self.keys, keys))

    def _fastest(self, index: Any, k: int) -> Any:
        """The index on the GPUs if there are any; filters and very long result lists need the one on the CPU."""
        if k > MAX_K_ON_GPU or not import_faiss().get_num_gpus():
            return index
        if self._on_gpu is None:
            self._on_gpu = convert_to_gpu_index(index, self.knn_func.gpus)
        return self._on_gpu

    def save(self, folder: Path, classes: list[str] | None) -> None:
        """Write the index, ids, label sets and class names; replaces an index that the folder holds."""
        if self.knn_func.index is None:
            raise ValueError("the index is empty; call index() before save()")
        if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - set(FILES)):
            raise ValueError(f"folder {folder} holds something other than an index; choose another or a new one")
        content = {"format": FORMAT, "classes": classes, "next_id": self.next_id, "ids": self.ids}
        folder.parent.mkdir(parents=True, exist_ok=True)
        # The old index stays until the new one is complete.
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as work:
            new, old = Path(work, "new"), Path(work, "old")
            new.mkdir()
            import_faiss().write_index(self.knn_func.index, os.fspath(new / "index.faiss"))
            np.save(new / "keys.npy", self.keys)
            if self.labels is not None:
                np.save(new / "labels.npy", self.labels.numpy())
            (new / "index.json").write_text(json.dumps(content), encoding="utf-8")
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            except BaseException:
                if old.exists():
                    old.rename(folder)
                raise

    def load(self, folder: Path) -> list[str] | None:
        """Read what :meth:`save` wrote; returns the class names."""
        try:
            content = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']!r} is not known to this version")
            index = import_faiss().read_index(os.fspath(folder / "index.faiss"))
            keys = np.load(folder / "keys.npy", allow_pickle=False)
            labels_file = folder / "labels.npy"
            labels = torch.from_numpy(np.load(labels_file, allow_pickle=False)) if labels_file.exists() else None
            ids, classes, next_id = content["ids"], content["classes"], content["next_id"]
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise ValueError(f"folder {folder} does not hold an index that save() wrote: {reason}") from error
        sizes = {index.ntotal, len(ids), len(keys)} | ({len(labels)} if labels is not None else set())
        if len(sizes) > 1:
            raise ValueError(
                f"folder {folder} holds files of different indexes, of {sorted(sizes)} entries; save again"
            )
        self._set(index, ids, keys, labels, next_id)
        return None if classes is None else list(classes)


def as_id(value: Any) -> int | str:
    """An id as an integer or a string; a path becomes a string."""
    if isinstance(value, bool) or not isinstance(value, (str, int, np.integer, os.PathLike)):
        raise TypeError(f"ids must hold integers, strings or paths, got {value!r}")
    return int(value) if isinstance(value, (int, np.integer)) else os.fspath(value)


def takes_keys(index: Any) -> bool:
    """Whether a faiss index stores a key with each vector."""
    faiss = import_faiss()
    return isinstance(index, faiss.IndexIDMap) or faiss.try_extract_index_ivf(index) is not None


def inner_index(index: Any) -> Any:
    """The faiss index that holds the vectors."""
    faiss = import_faiss()
    return faiss.downcast_index(index.index if isinstance(index, faiss.IndexIDMap) else index)


def only(index: Any, keys: NDArray[np.int64]) -> Any:
    """Search parameters of faiss for the entries with these keys, with the index's own settings otherwise."""
    faiss = import_faiss()
    chosen = np.zeros(keys.max(initial=0) + 1, bool)
    chosen[keys] = True
    selector = faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        return faiss.SearchParametersIVF(sel=selector, nprobe=ivf.nprobe, max_codes=ivf.max_codes)
    inner = inner_index(index)
    if isinstance(inner, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=inner.hnsw.efSearch)
    return faiss.SearchParameters(sel=selector)


def without(
    distances: NDArray[np.float32], keys: NDArray[np.int64], own: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Remove each query's own key from its row, or its last entry if the row is longer than k without it."""
    is_own = keys == own[:, None]
    order = np.argsort(is_own, axis=1, kind="stable")  # its own last, the others as they were
    distances, keys = np.take_along_axis(distances, order, 1), np.take_along_axis(keys, order, 1)
    keys[np.take_along_axis(is_own, order, 1)] = -1
    return distances[:, :k], keys[:, :k]
