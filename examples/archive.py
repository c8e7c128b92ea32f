"""The archives of search.py: an index folder, opened to find images."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from channel_files import channel_loader
from joined import make_embedder
from models import load_run, read_run
from result_page import Found
from torch import Tensor, nn

from pml_macl.datasets.image_files import load_image
from pml_macl.inference import MultiLabelInferenceModel, SearchResults

SURE = 0.5  # score from which a predicted label counts as a label of the query


@dataclass(frozen=True)
class Answer:
    """What a search finds.

    Args:
        results: the nearest images, nearest first.
        predicted: names and scores of up to five predicted labels, best first, without scores below 1%; empty for an
            archive without labels.
        labels: labels of the query: those of the archive if the query is in it, otherwise the predicted ones whose
            score is at least 0.5.
    """

    results: list[Found]
    predicted: list[tuple[str, float]]
    labels: list[str]


class Archive:
    """An indexed folder of images: what ``index`` writes, and what ``query`` and ``serve`` read.

    Args:
        folder: the index folder. It holds ``index`` (faiss's index, ids, label sets), ``best.pth`` (the networks, and
            the axes of joined embeddings) and ``archive.json`` (where the images are), so that it needs no other file
            but the images.
        device: where to put the networks.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        if not (folder / "archive.json").is_file():
            raise ValueError(f"--index {folder} holds no index; make one with: search.py index --index {folder} ...")
        network, self.transform, self.classes = load_run(folder, device)
        self.channels = read_run(folder)["settings"].get("channels")
        settings = json.loads((folder / "archive.json").read_text(encoding="utf-8"))
        self.images = Path(settings["images"])
        self.model = make_search_model(network, self.classes, read_run(folder).get("joined"), device)
        self.model.load(folder / "index")

    def search(self, image: Path, k: int, having: list[str], lacking: list[str]) -> Answer:
        """Find the nearest images of an image file. An image of the archive leaves itself out."""
        load = channel_loader(self.channels) or load_image
        query = self.transform(load(image))[None]
        own = self.id_of(image)
        query_ids = None if own is None else [own]
        (results,) = self.model.search(query, k, having, lacking, query_ids)
        predicted = []
        if self.model.labels is not None:
            scores = self.model.predict_labels(query, query_ids=query_ids)[0]
            best = [column for column in scores.argsort(descending=True)[:5].tolist() if scores[column] >= 0.01]
            predicted = [(self.classes[column], float(scores[column])) for column in best]
        labels = [name for name, score in predicted if score >= SURE] if own is None else self.labels_of(own)
        return Answer(self.found(results), predicted, labels)

    def browse(self, k: int, having: list[str], lacking: list[str]) -> list[str]:
        """The ids of up to k images that pass the filters, spread evenly over the archive."""
        passing = torch.ones(len(self.model), dtype=torch.bool)
        for name in having:
            passing &= self.model.labels[:, self.classes.index(name)]
        for name in lacking:
            passing &= ~self.model.labels[:, self.classes.index(name)]
        rows = passing.nonzero().flatten()
        spread = torch.linspace(0, len(rows) - 1, min(k, len(rows))).long()
        return [self.model.ids[row] for row in rows[spread].tolist()]

    def found(self, results: SearchResults) -> list[Found]:
        """Results with image files and label names in place of ids and columns."""
        rows = [None] * len(results) if results.labels is None else results.labels
        return [
            Found(self.images / str(name), distance, self.names(row))
            for name, distance, row in zip(results.ids, results.distances.tolist(), rows, strict=True)
        ]

    def names(self, row: Tensor | None) -> list[str]:
        """Label names of a (C,) label set; none without labels."""
        columns = [] if row is None else row.nonzero().flatten().tolist()
        return [self.classes[column] for column in columns]

    def id_of(self, image: Path) -> str | None:
        """The id of an image file, or None if it is not in the archive."""
        for path in (Path(os.path.abspath(image)), image.parent.resolve() / image.name):  # a folder may be a link
            if path.is_relative_to(self.images) and (name := path.relative_to(self.images).as_posix()) in self.model:
                return name
        return None

    def labels_of(self, image_id: str) -> list[str]:
        """Label names of an image of the archive."""
        if self.model.labels is None:
            return []
        return self.names(self.model.labels[self.model.ids.index(image_id)])


def make_search_model(
    network: nn.Sequential, classes: list[str], joined: Mapping[str, Any] | None, device: torch.device | str
) -> MultiLabelInferenceModel:
    """The model that indexes and searches.

    Args:
        network: the network of a run, with the parts trunk and embedder.
        classes: the label names.
        joined: what :func:`joined.fit_components` returned.
        device: where the network is.
    """
    embedder = make_embedder(network.embedder, joined, device)
    return MultiLabelInferenceModel(network.trunk, embedder, classes, data_device=device)
