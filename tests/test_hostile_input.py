"""Bad calls of the public API. Each raises an error that says what it found and how to fix it, and changes nothing."""

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning import reducers as pml_reducers
from torch import tensor

from pml_macl import LabelSets, LabelStatistics, evaluation
from pml_macl.datasets import (
    DLRSD,
    WHDLD,
    MultiLabelImageDataset,
    SyntheticScenes,
    read_split,
    stratified_split,
    write_split,
)
from pml_macl.distances import ConstantTemperature, CosineTemperature, LinearTemperature, TemperatureScheduledSimilarity
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.labels import jaccard_similarity
from pml_macl.losses import (
    JaccardSupConLoss,
    MACLLoss,
    MultiLabelCrossBatchMemory,
    MultiLabelLossWrapper,
    MultiSupConLoss,
    SupConAnyLoss,
)
from pml_macl.miners import LabelOverlapMiner, MultiLabelMinerWrapper
from pml_macl.reducers import FrequencyWeightedReducer
from pml_macl.samplers import LabelBalancedSampler
from pml_macl.testers import MultiLabelEmbeddingSpaceTester

LABELS = tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [0, 0, 0]])


class World(SimpleNamespace):
    """A valid batch, one object of each kind that already has some state, and a folder with two images."""

    def __init__(self, folder):
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
        statistics = LabelStatistics.from_labels(LABELS)
        schedule = LinearTemperature(0.2, 0.1, 10)
        loss = MACLLoss(num_classes=3, distance=TemperatureScheduledSimilarity(schedule=schedule))
        memory = MultiLabelCrossBatchMemory(MACLLoss(num_classes=3), 4, 3, memory_size=8)
        super().__init__(
            x=x,
            y=LABELS,
            folder=folder,
            statistics=statistics,
            loss=loss,
            memory=memory,
            arcface=pml_losses.ArcFaceLoss(3, 4),
            wrapper=MultiLabelLossWrapper(pml_losses.TripletMarginLoss()),
            miner=LabelOverlapMiner(),
            wrapped_miner=MultiLabelMinerWrapper(pml_miners.BatchHardMiner()),
            similarity=TemperatureScheduledSimilarity(schedule=CosineTemperature(0.2, 0.1, 10)),
            reducer=FrequencyWeightedReducer(statistics),
            calculator=MultiLabelAccuracyCalculator(),
        )
        loss(x.clone().requires_grad_(), LABELS)
        memory(x, LABELS)
        (folder / "images").mkdir()
        for name in ("a", "b"):
            Image.new("RGB", (4, 4)).save(folder / "images" / f"{name}.png")
        (folder / "secret.png").write_bytes((folder / "images" / "a.png").read_bytes())
        (folder / "good.csv").write_text("image,ship,part\na,1,train\nb,0,test\n")

    def reduce(self, labels):
        info = {"losses": torch.ones(2), "indices": pairs([0, 1], [1, 0]), "reduction_type": "pos_pair"}
        return self.reducer({"loss": info}, self.x, labels)

    def dataset(self, *more, **options):
        return MultiLabelImageDataset(self.folder / "images", self.folder / "good.csv", *more, **options)

    def table(self, content):
        """Load a data set whose label table has this content."""
        path = self.folder / "labels.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return MultiLabelImageDataset(self.folder / "images", path)

    def state(self):
        """Everything that a call could change, except the table that the call itself writes."""
        modules = {name: part for name, part in vars(self).items() if isinstance(part, torch.nn.Module)}
        files = sorted(path for path in self.folder.rglob("*") if path.is_file() and path.name != "labels.csv")
        return {
            "buffers": {name: part.state_dict() for name, part in modules.items()},
            "training": {name: part.training for name, part in modules.items()},
            "metrics": list(self.calculator.curr_function_dict),
            "files": {str(path): path.read_bytes() for path in files},
            "random numbers": torch.get_rng_state(),
            "batch": (self.x, self.y),
        }


class BadCall(NamedTuple):
    call: Callable[[World], object]
    error: type[Exception]
    message: tuple[str, ...]


def pairs(*indices):
    return tuple(tensor(index) for index in indices)


RANGE = "in [0, 1]"
BAD_CALLS = {
    # Batches: the same checks for losses, miners, distances and the memory.
    "embeddings: list": BadCall(
        lambda w: w.loss(w.x.tolist(), w.y), TypeError, ("embeddings", "got list", "torch.as_tensor")
    ),
    "embeddings: 1-D": BadCall(lambda w: w.loss(w.x[0], w.y), ValueError, ("embeddings", "(4,)", "reshape")),
    "embeddings: integers": BadCall(lambda w: w.loss(w.x.long(), w.y), ValueError, ("embeddings", "int64", "float()")),
    "embeddings: complex": BadCall(lambda w: w.loss(w.x * 1j, w.y), ValueError, ("embeddings", "complex64")),
    "embeddings: sparse": BadCall(
        lambda w: w.loss(w.x.to_sparse(), w.y), ValueError, ("embeddings", "sparse_coo", "to_dense()")
    ),
    "labels: None": BadCall(lambda w: w.loss(w.x, None), TypeError, ("labels", "got NoneType", "one row per image")),
    "labels: array": BadCall(lambda w: w.loss(w.x, w.y.numpy()), TypeError, ("labels", "ndarray", "torch.as_tensor")),
    "labels: class numbers": BadCall(
        lambda w: w.loss(w.x, w.y[:, 0]), ValueError, ("labels", "(6,)", 'label_hierarchy_level="all"', "one_hot")
    ),
    "labels: 3-D": BadCall(lambda w: w.miner(w.x, w.y[None]), ValueError, ("labels", "(rows, classes)", "(1, 6, 3)")),
    "labels: sparse": BadCall(
        lambda w: w.miner(w.x, w.y.to_sparse()), ValueError, ("labels", "sparse_coo", "to_dense()")
    ),
    "labels: rows": BadCall(lambda w: w.miner(w.x, w.y[:5]), ValueError, ("labels", "one row per embedding (6)", "5")),
    "labels: columns": BadCall(
        lambda w: w.loss(w.x, w.y[:, :2]), ValueError, ("labels", "one column per class (3)", "2 columns")
    ),
    "labels: two": BadCall(lambda w: w.wrapper(w.x, 2 * w.y), ValueError, ("labels", "0 and 1", "got 2", "threshold")),
    "labels: minus one": BadCall(
        lambda w: w.wrapped_miner(w.x, -w.y), ValueError, ("labels", "got -1", "pass labels > 0")
    ),
    "labels: half": BadCall(lambda w: w.similarity(w.x, None, w.y / 2), ValueError, ("labels", "0 and 1", "got 0.5")),
    "labels: NaN": BadCall(
        lambda w: w.memory(w.x, w.y * torch.nan), ValueError, ("labels", "0 and 1", "got nan", "fill it")
    ),
    "references: without labels": BadCall(
        lambda w: w.loss(w.x, w.y, None, w.x), ValueError, ("ref_emb", "without ref_labels", "give both or neither")
    ),
    "references: labels alone": BadCall(
        lambda w: w.miner(w.x, w.y, None, w.y), ValueError, ("ref_labels", "without ref_emb", "give both or neither")
    ),
    "references: size": BadCall(
        lambda w: w.loss(w.x, w.y, None, w.x[:, :2], w.y), ValueError, ("ref_emb", "embedding size 4", "got 2")
    ),
    "references: rows": BadCall(
        lambda w: w.wrapper(w.x, w.y, None, w.x, w.y[:2]), ValueError, ("ref_labels", "(6)", "got 2 rows")
    ),
    "references: columns": BadCall(
        lambda w: w.miner(w.x, w.y, w.x, w.y[:, :1]), ValueError, ("ref_labels", "(3)", "got 1 columns")
    ),
    "references: device": BadCall(
        lambda w: w.loss(w.x, w.y, None, w.x.to("meta"), w.y), ValueError, ("ref_emb", "cpu", "got meta", "to()")
    ),
    "indices: two tensors": BadCall(
        lambda w: w.loss(w.x, w.y, pairs([0], [1])), ValueError, ("indices_tuple", "(a1, p, a2, n)", "got 2 tensors")
    ),
    "indices: lists": BadCall(
        lambda w: w.loss(w.x, w.y, ([0], [1], [0], [2])), TypeError, ("indices_tuple", "tuple of list, list")
    ),
    "indices: dictionary": BadCall(
        lambda w: w.wrapper(w.x, w.y, {"a": 0}), TypeError, ("indices_tuple", "tuple of tensors", "got dict")
    ),
    "indices: beyond the batch": BadCall(
        lambda w: w.loss(w.x, w.y, pairs([0], [9], [0], [2])), ValueError, ("indices_tuple", "from 0 to 5", "9")
    ),
    "indices: negative": BadCall(
        lambda w: w.memory(w.x, w.y, pairs([0], [-1], [2])), ValueError, ("indices_tuple", "from 0 to 5", "-1")
    ),
    "indices: floats": BadCall(
        lambda w: w.loss(w.x, w.y, pairs([0.0], [1.0], [2.0])), TypeError, ("indices_tuple", "integers", "float32")
    ),
    "indices: unequal lengths": BadCall(
        lambda w: w.loss(w.x, w.y, pairs([0, 1], [1], [0], [2])), ValueError, ("indices_tuple", "equal length", "(2,)")
    ),
    "indices: both": BadCall(
        lambda w: w.loss(w.x, w.y, pairs([0], [1], [0], [1])), ValueError, ("indices_tuple", "as a positive or as a")
    ),
    # Constructors of losses.
    "num_classes: zero": BadCall(lambda w: MACLLoss(num_classes=0), ValueError, ("num_classes", "at least 1", "got 0")),
    "num_classes: text": BadCall(lambda w: MACLLoss(num_classes="3"), TypeError, ("num_classes", "got '3'")),
    "num_classes: other": BadCall(
        lambda w: MACLLoss(4, w.statistics), ValueError, ("num_classes=4", "label_statistics", "[3]")
    ),
    "label_statistics: labels": BadCall(
        lambda w: MACLLoss(label_statistics=w.y), TypeError, ("label_statistics", "LabelStatistics", "got Tensor")
    ),
    "positive_threshold: range": BadCall(
        lambda w: MACLLoss(positive_threshold=1.5), ValueError, ("positive_threshold", RANGE, "got 1.5")
    ),
    "positive_threshold: NaN": BadCall(
        lambda w: MACLLoss(positive_threshold=float("nan")), ValueError, ("positive_threshold", RANGE, "got nan")
    ),
    "negative_threshold: text": BadCall(
        lambda w: MACLLoss(negative_threshold="0"), TypeError, ("negative_threshold", "number", "got str")
    ),
    "engine: unknown": BadCall(
        lambda w: MACLLoss(engine="fast"), ValueError, ("engine", "'auto', 'fused', 'reference'", "got 'fast'")
    ),
    "engine: impossible": BadCall(
        lambda w: MACLLoss(engine="fused", distance=pml_distances.LpDistance())(w.x, w.y),
        ValueError,
        ('engine="fused"', "LpDistance", 'engine="auto"'),
    ),
    "reducer: text": BadCall(lambda w: MACLLoss(reducer="mean"), TypeError, ("reducer", "got str", "pass an instance")),
    "reducer: by class": BadCall(
        lambda w: MACLLoss(reducer=pml_reducers.ClassWeightedReducer(torch.ones(3))),
        ValueError,
        ("ClassWeightedReducer", "one class per row", "use FrequencyWeightedReducer"),
    ),
    "reducer: divisor": BadCall(
        lambda w: MACLLoss(reducer=pml_reducers.DivisorReducer()), ValueError, ("DivisorReducer", "no divisor", "use")
    ),
    "distance: text": BadCall(
        lambda w: MACLLoss(distance="cosine"), TypeError, ("distance", "got str", "pass an instance of BaseDistance")
    ),
    "temperature and distance": BadCall(
        lambda w: MACLLoss(temperature=0.1, distance=w.similarity),
        TypeError,
        ("distance", "TemperatureScheduledSimilarity", "leave the temperature out"),
    ),
    "embedding_regularizer: text": BadCall(
        lambda w: MACLLoss(embedding_regularizer="l2"), TypeError, ("embedding_regularizer", "got str", "an instance")
    ),
    "temperature: zero": BadCall(lambda w: SupConAnyLoss(0), ValueError, ("temperature", "above 0", "got 0")),
    "temperature: infinite": BadCall(
        lambda w: SupConAnyLoss(float("inf")), ValueError, ("temperature", "finite", "got inf")
    ),
    "temperature: truth": BadCall(lambda w: SupConAnyLoss(True), TypeError, ("temperature", "number", "got bool")),
    "two temperatures": BadCall(
        lambda w: JaccardSupConLoss(distance=w.similarity), TypeError, ("distance", "must not be", "both temperatures")
    ),
    "threshold of MultiSupCon": BadCall(lambda w: MultiSupConLoss(threshold=2), ValueError, ("threshold", RANGE, "2")),
    "wrapper: a class": BadCall(
        lambda w: MultiLabelLossWrapper(pml_losses.TripletMarginLoss),
        TypeError,
        ("loss", "got type", "an instance"),
    ),
    "wrapper: not of PML": BadCall(
        lambda w: MultiLabelLossWrapper(torch.nn.MSELoss()), TypeError, ("loss", "got MSELoss")
    ),
    "wrapper: weights a class": BadCall(
        lambda w: MultiLabelLossWrapper(w.arcface), ValueError, ("ArcFaceLoss", "one class per row")
    ),
    "wrapper: swap": BadCall(
        lambda w: MultiLabelLossWrapper(pml_losses.TripletMarginLoss(swap=True)),
        ValueError,
        ("swap=True", "swap=False"),
    ),
    "wrapper: multi-label already": BadCall(
        lambda w: MultiLabelLossWrapper(w.loss), ValueError, ("MACLLoss", "must not override forward", "without the")
    ),
    "wrapper: distance": BadCall(
        lambda w: MultiLabelLossWrapper(pml_losses.TripletMarginLoss(), distance=pml_distances.LpDistance()),
        TypeError,
        ("distance", "pass it to TripletMarginLoss"),
    ),
    # The memory.
    "memory: no size": BadCall(
        lambda w: MultiLabelCrossBatchMemory(MACLLoss(), 0, 3), ValueError, ("embedding_size", "at least 1", "got 0")
    ),
    "memory: size as float": BadCall(
        lambda w: MultiLabelCrossBatchMemory(MACLLoss(), 4, 3, 8.0), TypeError, ("memory_size", "integer", "8.0")
    ),
    "memory: one class per row": BadCall(
        lambda w: MultiLabelCrossBatchMemory(pml_losses.TripletMarginLoss(), 4, 3),
        ValueError,
        ("loss", "TripletMarginLoss", "wrap it in MultiLabelLossWrapper"),
    ),
    "memory: miner of one class per row": BadCall(
        lambda w: MultiLabelCrossBatchMemory(MACLLoss(), 4, 3, miner=pml_miners.BatchHardMiner()),
        ValueError,
        ("miner", "BatchHardMiner", "wrap it in MultiLabelMinerWrapper"),
    ),
    "memory: too many rows": BadCall(
        lambda w: w.memory(torch.ones(9, 4), torch.ones(9, 3)), ValueError, ("memory_size (8)", "got 9", "smaller")
    ),
    "memory: embedding size": BadCall(
        lambda w: w.memory(w.x[:, :3], w.y), ValueError, ("embeddings", "embedding size 4", "got 3")
    ),
    "memory: added rows": BadCall(lambda w: w.memory.add_to_memory(w.x, w.y[:2]), ValueError, ("labels", "(6)", "2")),
    "memory: mask of floats": BadCall(
        lambda w: w.memory(w.x, w.y, None, torch.ones(6)), ValueError, ("enqueue_mask", "torch.bool", "float32")
    ),
    "memory: mask and indices": BadCall(
        lambda w: w.memory(w.x, w.y, pairs([0], [1], [2]), torch.ones(6).bool()),
        ValueError,
        ("indices_tuple", "enqueue_mask", "leave one of them out"),
    ),
    # Miners, distances, reducers, statistics, label sets, sampler.
    "pos_strategy": BadCall(
        lambda w: LabelOverlapMiner(pos_strategy="semihard"), ValueError, ("pos_strategy", "'easy'", "got 'semihard'")
    ),
    "max_negatives_per_anchor: zero": BadCall(
        lambda w: LabelOverlapMiner(max_negatives_per_anchor=0), ValueError, ("max_negatives_per_anchor", "1", "got 0")
    ),
    "max_positives_per_anchor: float": BadCall(
        lambda w: LabelOverlapMiner(max_positives_per_anchor=2.0), TypeError, ("max_positives_per_anchor", "got 2.0")
    ),
    "output": BadCall(lambda w: LabelOverlapMiner(output="all"), ValueError, ("output", "'triplets'", "got 'all'")),
    "distance of a miner": BadCall(
        lambda w: LabelOverlapMiner(distance="l2"),
        TypeError,
        ("distance", "got str", "pass an instance of BaseDistance"),
    ),
    "wrapped miner: type": BadCall(lambda w: MultiLabelMinerWrapper("hard"), TypeError, ("miner", "got str")),
    "wrapped miner: classes": BadCall(
        lambda w: MultiLabelMinerWrapper(pml_miners.DistanceWeightedMiner()), ValueError, ("DistanceWeightedMiner",)
    ),
    "overlap_scale": BadCall(
        lambda w: TemperatureScheduledSimilarity(overlap_scale=-1), ValueError, ("overlap_scale", ">= 0", "ruins")
    ),
    "rarity_scale": BadCall(
        lambda w: TemperatureScheduledSimilarity(rarity_scale=1.1), ValueError, ("rarity_scale", RANGE, "got 1.1")
    ),
    "schedule": BadCall(
        lambda w: TemperatureScheduledSimilarity(schedule=0.1), TypeError, ("schedule", "temperature schedule", "float")
    ),
    "schedule: end": BadCall(lambda w: LinearTemperature(0.1, 0, 5), ValueError, ("end", "above 0", "got 0")),
    "schedule: steps": BadCall(lambda w: CosineTemperature(0.2, 0.1, 0), ValueError, ("num_steps", "at least 1", "0")),
    "schedule: constant": BadCall(lambda w: ConstantTemperature("a"), TypeError, ("value", "number", "got str")),
    "similarity: labels of the references": BadCall(
        lambda w: w.similarity(w.x, w.x, None, w.y), ValueError, ("ref_labels", "without labels", "give both")
    ),
    "power": BadCall(lambda w: FrequencyWeightedReducer(power=-1), ValueError, ("power", ">= 0", "got -1")),
    "level": BadCall(lambda w: FrequencyWeightedReducer(level="pair"), ValueError, ("level", "'label'", "got 'pair'")),
    "reducer: no labels": BadCall(
        lambda w: w.reduce(None), ValueError, ("labels", "got None", "pass labels to the loss")
    ),
    "reducer: columns": BadCall(lambda w: w.reduce(w.y[:, :2]), ValueError, ("labels", "(3)", "got 2 columns")),
    "statistics: no classes": BadCall(
        lambda w: LabelStatistics.from_labels(w.y[:, :0]), ValueError, ("num_classes", "at least 1", "got 0")
    ),
    "statistics: synchronize": BadCall(
        lambda w: LabelStatistics(3, "yes"), TypeError, ("synchronize", "True or False", "'yes'")
    ),
    "statistics: columns": BadCall(lambda w: w.statistics.update(w.y[:, :2]), ValueError, ("labels", "(3)", "got 2")),
    "statistics: counts": BadCall(lambda w: w.statistics.update(3 * w.y), ValueError, ("labels", "0 and 1", "got 3")),
    "label sets: classes": BadCall(
        lambda w: LabelSets(w.y).unique(), TypeError, ("unique", "not classes", "multi_hot()")
    ),
    "label sets: number": BadCall(lambda w: LabelSets(w.y) == 1, TypeError, ("LabelSets", "got int", "class numbers")),
    "similarity of labels: columns": BadCall(
        lambda w: jaccard_similarity(w.y, w.y[:, :2]), ValueError, ("ref_labels", "(3)", "got 2 columns")
    ),
    "sampler: batch": BadCall(lambda w: LabelBalancedSampler(w.y, 7), ValueError, ("batch_size", "at most 6", "got 7")),
    "sampler: labels": BadCall(
        lambda w: LabelBalancedSampler(w.y, 2, 3), ValueError, ("labels_per_batch", "at most 2", "got 3")
    ),
    "sampler: length": BadCall(
        lambda w: LabelBalancedSampler(w.y, 2, length_before_new_iter=3), ValueError, ("length_before", "got 3; take 4")
    ),
    "sampler: nothing": BadCall(
        lambda w: LabelBalancedSampler(w.y[:0], 1), ValueError, ("labels", "at least one label", "0 images")
    ),
    "sampler: generator": BadCall(
        lambda w: LabelBalancedSampler(w.y, 2, generator=3), TypeError, ("generator", "torch.Generator", "got int")
    ),
    # Evaluation.
    "include: text": BadCall(
        lambda w: MultiLabelAccuracyCalculator("ndcg"), TypeError, ("include", "tuple or list", "got 'ndcg'")
    ),
    "include: unknown": BadCall(
        lambda w: w.calculator.get_accuracy(w.x, w.y, include=("mAP",)), ValueError, ("include", "['mAP']", "it has:")
    ),
    "k": BadCall(lambda w: MultiLabelAccuracyCalculator(k=0), ValueError, ("k must be", "'max_bin_count'", "got 0")),
    "relevance_threshold: range": BadCall(
        lambda w: MultiLabelAccuracyCalculator(relevance_threshold=2), ValueError, ("relevance_threshold", RANGE, "2")
    ),
    "relevance_threshold: text": BadCall(
        lambda w: MultiLabelAccuracyCalculator(relevance_threshold="0.5"),
        TypeError,
        ("relevance_threshold", "number", "str"),
    ),
    "gain": BadCall(
        lambda w: MultiLabelAccuracyCalculator(gain="count"), ValueError, ("gain", "'jaccard'", "got 'count'")
    ),
    "device": BadCall(
        lambda w: MultiLabelAccuracyCalculator(device="nowhere"), ValueError, ("device", "'cuda:0'", "got 'nowhere'")
    ),
    "knn_func": BadCall(
        lambda w: MultiLabelAccuracyCalculator(knn_func="faiss"), TypeError, ("knn_func", "got 'faiss'", "FaissKNN")
    ),
    "avg_of_avgs": BadCall(
        lambda w: MultiLabelAccuracyCalculator(avg_of_avgs="yes"), TypeError, ("avg_of_avgs", "True or False", "'yes'")
    ),
    "query: list": BadCall(
        lambda w: w.calculator.get_accuracy(w.x.tolist(), w.y), TypeError, ("query", "torch.Tensor", "got list")
    ),
    "query: NaN": BadCall(
        lambda w: w.calculator.get_accuracy(w.x * torch.nan, w.y), ValueError, ("query", "finite", "6 of 6 rows")
    ),
    "query: minus infinity": BadCall(
        lambda w: w.calculator.get_accuracy(w.x - torch.inf, w.y), ValueError, ("query", "finite", "6 of 6 rows")
    ),
    "query: too large below 0": BadCall(
        lambda w: w.calculator.get_accuracy(w.x - 1e30, w.y), ValueError, ("query", "overflow", "1.0e+30")
    ),
    "query: empty": BadCall(
        lambda w: w.calculator.get_accuracy(w.x[:0], w.y[:0]), ValueError, ("query", "(rows, embedding_size)", "(0, 4)")
    ),
    "query_labels: text": BadCall(
        lambda w: w.calculator.get_accuracy(w.x, np.full((6, 3), "a")), TypeError, ("query_labels", "<U1", "astype")
    ),
    "query_labels: rows": BadCall(
        lambda w: w.calculator.get_accuracy(w.x, w.y[:3]), ValueError, ("query_labels", "(6)", "got 3 rows")
    ),
    "reference: size": BadCall(
        lambda w: w.calculator.get_accuracy(w.x, w.y, w.x[:, :2], w.y),
        ValueError,
        ("reference", "same embedding size", "4 and 2"),
    ),
    "reference: without labels": BadCall(
        lambda w: w.calculator.get_accuracy(w.x, w.y, w.x), ValueError, ("reference_labels", "missing", "together")
    ),
    "reference_labels: alone": BadCall(
        lambda w: w.calculator.get_accuracy(w.x, w.y, None, w.y), ValueError, ("reference_labels", "without reference")
    ),
    "reference: queries not first": BadCall(
        lambda w: w.calculator.get_accuracy(w.x, w.y, w.x.flip(0), w.y, True),
        ValueError,
        ("ref_includes_query", "put the queries first"),
    ),
    "ndcg: shapes": BadCall(
        lambda w: evaluation.ndcg(torch.ones(2, 3), torch.ones(2, 2)), ValueError, ("ideal_gains", "(2, 3)", "(2, 2)")
    ),
    "precision_at_k: k": BadCall(
        lambda w: evaluation.precision_at_k(torch.ones(2, 3).bool(), 4), ValueError, ("k must be", "1 to 3", "got 4")
    ),
    "label_hierarchy_level": BadCall(
        lambda w: MultiLabelEmbeddingSpaceTester(label_hierarchy_level=0),
        ValueError,
        ("label_hierarchy_level", "'all'"),
    ),
    # Label tables and image folders, which are untrusted.
    "table: missing": BadCall(
        lambda w: MultiLabelImageDataset(w.folder / "images", w.folder / "none.csv"),
        FileNotFoundError,
        ("none.csv", "correct the path"),
    ),
    "table: a folder": BadCall(
        lambda w: MultiLabelImageDataset(w.folder / "images", w.folder), FileNotFoundError, ("no label table",)
    ),
    "images: missing folder": BadCall(
        lambda w: MultiLabelImageDataset(w.folder / "pictures", w.folder / "good.csv", split_column="part"),
        FileNotFoundError,
        ("no image folder", "pictures", "check the path"),
    ),
    "images: a number": BadCall(
        lambda w: MultiLabelImageDataset(3, w.folder / "good.csv"), TypeError, ("images", "path", "got 3")
    ),
    "split: no column": BadCall(
        lambda w: w.dataset("train"), ValueError, ("split 'train'", "without split_column", "name of the column")
    ),
    "split: unknown column": BadCall(
        lambda w: w.dataset("train", "fold"), ValueError, ("no column 'fold'", "['ship', 'part']")
    ),
    "split: unknown": BadCall(
        lambda w: w.dataset("val", "part"), ValueError, ("no split 'val'", "'part'", "it has test, train")
    ),
    "ignore_columns: text": BadCall(
        lambda w: w.dataset(ignore_columns="part"), TypeError, ("ignore_columns", "collection", "'part'")
    ),
    "transform": BadCall(lambda w: w.dataset(transform=3), TypeError, ("transform", "callable", "got 3")),
    "table: a column that is no class": BadCall(
        lambda w: w.dataset(), ValueError, ("line 2, column 'part'", "'train'", "ignore_columns")
    ),
    "table: empty": BadCall(lambda w: w.table(""), ValueError, ("is empty", "first line must name the columns")),
    "table: header alone": BadCall(lambda w: w.table("image,ship\n"), ValueError, ("header but no rows", "write one")),
    "table: wrong delimiter": BadCall(
        lambda w: w.table("image;ship\na;1\n"), ValueError, ("one column, 'image;ship'", "commas or tabs")
    ),
    "table: missing column": BadCall(
        lambda w: w.table("image,ship,tree\na,1\n"),
        ValueError,
        ("line 2", "one cell per column (3), got 2 cells", "correct that row"),
    ),
    "table: column without name": BadCall(
        lambda w: w.table("image,\na,1\n"), ValueError, ("column 2 of 2 has no name", "name it")
    ),
    "table: column twice": BadCall(
        lambda w: w.table("image,ship,ship\na,1,1\n"), ValueError, ("two columns 'ship'", "rename or remove")
    ),
    "table: id twice": BadCall(
        lambda w: w.table("image,ship\na,1\na,1\n"), ValueError, ("line 3", "'a'", "line 2", "keep one")
    ),
    "table: image twice": BadCall(
        lambda w: w.table("image,ship\na,1\na.png,1\n"), ValueError, ("'a' and 'a.png'", "keep one")
    ),
    "table: no id": BadCall(lambda w: w.table("image,ship\n,1\n"), ValueError, ("line 2", "id", "empty", "correct")),
    "table: cell of two": BadCall(
        lambda w: w.table("\ufeffimage,ship\r\na,1\r\nb,2\r\n"),
        ValueError,
        ("line 3, column 'ship'", "0, 1, True or False", "'2'"),
    ),
    "table: empty cell": BadCall(
        lambda w: w.table("image,ship\na,\n"), ValueError, ("line 2, column 'ship'", "got an empty cell", "write 1")
    ),
    "table: UTF-16": BadCall(
        lambda w: w.table("image,ship\na,1\n".encode("utf-16")), ValueError, ("not a comma-", "UTF-8", "export it")
    ),
    "table: open quotation": BadCall(
        lambda w: w.table('image,ship\n"a,1\n'), ValueError, ("not a comma-", "unexpected end", "export it")
    ),
    "table: endless cell": BadCall(
        lambda w: w.table(f"image,ship\n{'a' * 200_000},1\n"), ValueError, ("field larger than", "export it")
    ),
    "table: a pickle": BadCall(
        lambda w: w.table(pickle.dumps(Stranger())), ValueError, ("not a comma-", "UTF-8", "export it")
    ),
    "id: parent folder": BadCall(
        lambda w: w.table("image,ship\n../secret,1\n"), ValueError, ("'../secret'", "relative and without '..'")
    ),
    "id: parent folder inside": BadCall(
        lambda w: w.table("image,ship\nx\\..\\..\\secret,1\n"), ValueError, ("secret", "relative and without '..'")
    ),
    "id: absolute": BadCall(
        lambda w: w.table(f"image,ship\n{w.folder / 'secret.png'},1\n"), ValueError, ("secret.png", "relative")
    ),
    "id: drive": BadCall(lambda w: w.table("image,ship\nC:\\secret,1\n"), ValueError, ("secret", "relative")),
    "id: no image": BadCall(
        lambda w: w.table("image,ship\nzz,1\n"), FileNotFoundError, ("1 of 1", "'zz'", "Add the images")
    ),
    "layout: missing folder": BadCall(
        lambda w: DLRSD(w.folder), FileNotFoundError, ("Images", "DLRSD", "Get the data from", "must then hold")
    ),
    "layout: not a path": BadCall(lambda w: WHDLD(7), TypeError, ("root", "path", "got 7")),
    "fractions": BadCall(
        lambda w: stratified_split(w.y, (0.5, 0.6)), ValueError, ("fractions", "add up to 1", "(0.5, 0.6)")
    ),
    "seed": BadCall(lambda w: stratified_split(w.y, seed=-1), ValueError, ("seed", "at least 0", "got -1")),
    "written split: id twice": BadCall(
        lambda w: write_split(w.folder / "s.csv", ["a", "a"], tensor([0, 1])), ValueError, ("ids", "'a' twice")
    ),
    "written split: file there": BadCall(
        lambda w: write_split(w.folder / "good.csv", ["a"], tensor([0])), FileExistsError, ("good.csv", "remove it")
    ),
    "read split: other table": BadCall(
        lambda w: read_split(w.folder / "good.csv"), ValueError, ("'id,split'", "got 'image,ship,part'")
    ),
    "scenes: none": BadCall(lambda w: SyntheticScenes(0), ValueError, ("num_images", "at least 1", "got 0")),
    "scenes: size": BadCall(lambda w: SyntheticScenes(1, 8), ValueError, ("image_size", "at least 16", "got 8")),
}


class Stranger:
    """Creates a file when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("unpickled"),)


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return World(tmp_path)


def assert_same(found, expected, name=""):
    if isinstance(expected, dict):
        assert list(found) == list(expected), name
        for key, value in expected.items():
            assert_same(found[key], value, f"{name}/{key}")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), name
    elif isinstance(expected, tuple):
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{name}/{number}")
    else:
        assert found == expected, name


def copy(state):
    """Copy the state and its tensors."""
    if isinstance(state, dict):
        return {name: copy(part) for name, part in state.items()}
    if isinstance(state, tuple):
        return tuple(copy(part) for part in state)
    return state.clone() if isinstance(state, torch.Tensor) else state


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_bad_call_says_what_it_found_and_how_to_fix_it_and_changes_nothing(world, name):
    call, error, fragments = BAD_CALLS[name]
    before = copy(world.state())
    with pytest.raises(error) as raised:
        call(world)
    message = str(raised.value)
    for fragment in fragments:
        assert fragment in message
    assert_same(world.state(), before)


def test_valid_calls_on_the_same_objects_succeed(world):
    assert len(BAD_CALLS) >= 60
    for part in (world.loss, world.wrapper, world.memory):
        assert part(world.x, world.y).isfinite()
    world.loss(world.x, world.y, world.miner(world.x, world.y), world.x, world.y)
    assert world.reduce(world.y) == 1
    assert world.calculator.get_accuracy(world.x, world.y, world.x, world.y, True)["ndcg"] <= 1
    assert world.dataset("train", "part").classes == ["ship"]
    assert len(world.table("\ufeffimage,ship\r\na,1\r\nb.png,0\r\n")) == 2  # BOM and CRLF


def test_a_file_in_another_format_with_the_name_of_an_image_is_not_opened(world):
    """Pillow opens EPS files with another program."""
    (world.folder / "images" / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    dataset = world.table("image,ship\na,1\n")
    with pytest.raises(ValueError, match=r"cannot decode image .*a\.png"):
        dataset[0]
    with pytest.raises(ValueError, match="1 of 1 images cannot be read"):
        dataset.check_images()
