"""What a search finds for one query."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SearchResults:
    """The images that a search finds for one query, nearest first.

    Attributes:
        ids: the k ids, as :meth:`~pml_macl.inference.MultiLabelInferenceModel.index` returned them. If fewer
            images pass the filters than were asked for, there are fewer ids.
        distances: (k,) distances in float32, as the faiss index measures them. For the default index these are squared
            Euclidean distances; for normalised embeddings that is 2 - 2 cos. An inner-product index gives
            similarities, the largest first.
        labels: (k, C) boolean label sets, or None if the index has no labels.
    """

    ids: list[int] | list[str]
    distances: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.ids)
