"""Every public part gives on another device what it gives on the CPU, and does not wait for it in a training step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from other_device import WORKS, OtherDevice, OtherTensor, needs_other_device
from public_objects import public_objects
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning.trainers import MetricLossOnly
from torch.utils.data import TensorDataset

import pml_macl
from pml_macl import (
    FrequencyWeightedJaccard,
    LabelSets,
    LabelStatistics,
    Pairs,
    datasets,
    deferred_check,
    distances,
    evaluation,
    functional,
    inference,
    losses,
    miners,
    reducers,
    samplers,
    testers,
)

NUM_CLASSES = 5


def batch(device: str, rows: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, 4) embeddings that need a gradient, and (rows, 5) label sets; the same numbers on each device."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(rows, 4, generator=generator, dtype=torch.float64).to(device)
    labels = torch.rand(rows, NUM_CLASSES, generator=generator) < 0.4
    return embeddings.requires_grad_(), labels.to(device)


def some_pairs(device: str) -> tuple[torch.Tensor, ...]:
    """Anchors and positives, anchors and negatives."""
    return tuple(torch.tensor(rows, device=device) for rows in ([0, 1, 2], [3, 4, 5], [0, 1, 2], [6, 7, 1]))


def statistics(device: str) -> LabelStatistics:
    return LabelStatistics.from_labels(batch("cpu", rows=40, seed=1)[1]).to(device)


def jaccard_of(device: str) -> FrequencyWeightedJaccard:
    return FrequencyWeightedJaccard(statistics(device))


def same_first_label(labels: torch.Tensor, ref_labels: torch.Tensor) -> torch.Tensor:
    return labels[:, None, 0] == ref_labels[None, :, 0]


@dataclass
class Part:
    """One use of public objects.

    Args:
        covers: the public objects that this use runs.
        run: called with a device and a number of rows; returns the tensors to compare.
        reads: how often a call makes the program wait for the device, with few rows and with more.
    """

    covers: tuple[Any, ...]
    run: Callable[[str, int], Any]
    reads: int = 0


def step_of(make: Callable[[str], Any]) -> Callable[[str, int], Any]:
    """Loss and gradient of a batch, of a batch with references, and of given pairs."""

    def run(device: str, rows: int) -> Any:
        loss_fn, results = make(device).to(device), []
        references, ref_labels = batch(device, rows + 4, seed=2)
        pairs = some_pairs(device)
        for arguments, options in (
            ((), {}),
            ((), {"ref_emb": references, "ref_labels": ref_labels}),
            ((pairs,), {}),
        ):
            embeddings, labels = batch(device, rows)
            loss = loss_fn(embeddings, labels, *arguments, **options)
            loss.backward()
            results += [loss.detach(), embeddings.grad]
        return results

    return run


def memory_step(device: str, rows: int) -> Any:
    memory = losses.MultiLabelCrossBatchMemory(losses.MACLLoss(), 4, NUM_CLASSES, 20).to(device)
    results = []
    for seed in range(3):
        embeddings, labels = batch(device, rows, seed)
        memory(embeddings, labels).backward()
        results.append(embeddings.grad)
    return results


def shared_step(device: str, rows: int) -> Any:
    embeddings, labels = batch(device, rows)
    loss = losses.MultiLabelDistributedLossWrapper(losses.MACLLoss()).to(device)(embeddings, labels)
    loss.backward()
    return loss.detach(), embeddings.grad


def wrapped_step(loss: Any, **options: Any) -> Callable[[str, int], Any]:
    def run(device: str, rows: int) -> Any:
        embeddings, labels = batch(device, rows)
        loss_value = losses.MultiLabelLossWrapper(loss, **options).to(device)(embeddings, labels)
        loss_value.backward()
        return loss_value.detach(), embeddings.grad

    return run


def mined(make: Callable[[], Any]) -> Callable[[str, int], Any]:
    def run(device: str, rows: int) -> Any:
        torch.manual_seed(0)
        return make().to(device)(*batch(device, rows))

    return run


def scheduled(schedule: Callable[[], Any]) -> Callable[[str, int], Any]:
    def run(device: str, rows: int) -> Any:
        distance = distances.TemperatureScheduledSimilarity(schedule=schedule()).to(device)
        embeddings, labels = batch(device, rows)
        loss = losses.MACLLoss(distance=distance)(embeddings, labels)
        loss.backward()
        parameters = [parameter.grad for parameter in distance.parameters()]
        return [loss.detach(), embeddings.grad, distance(embeddings.detach()), *parameters]

    return run


def pairs_of(device: str, rows: int) -> Any:
    _, labels = batch(device, rows)
    sets, ref_sets = LabelSets.with_references(labels, batch(device, rows, seed=3)[1])
    block = Pairs(labels)[slice(0, 3)]
    return [
        sets[:, None] == ref_sets[None],
        sets.multi_hot(),
        block.shared,
        block.jaccard,
        block.positives,
        block.negatives,
        block.sum_over_shared(torch.arange(float(NUM_CLASSES)).to(device)),
        pml_macl.check_labels(labels),
        pml_macl.jaccard_similarity(labels, labels),
        pml_macl.shared_label_counts(labels, labels),
        jaccard_of(device)(labels, labels),
    ]


def counted_labels(device: str, rows: int) -> Any:
    counts = LabelStatistics(NUM_CLASSES).to(device)
    counts.update(batch(device, rows)[1])
    return [counts.counts, counts.cooccurrence, counts.label_rarity(), counts.inverse_cooccurrence()]


def functions(device: str, rows: int) -> Any:
    embeddings, labels = batch(device, rows)
    shared, jaccard = pml_macl.shared_label_counts(labels, labels), pml_macl.jaccard_similarity(labels, labels)
    positives, negatives = functional.positive_negative_masks(shared, jaccard, exclude_self=True)
    rarity = torch.rand(rows, generator=torch.Generator().manual_seed(3)).to(device)
    values = torch.arange(1.0, NUM_CLASSES + 1).to(device)
    terms = embeddings.detach() @ embeddings.detach().T
    many = torch.zeros(rows, 150, dtype=torch.bool, device=device)  # so many classes need the sparse path
    many[:, 20:25] = labels
    costs = torch.rand(150, 150, generator=torch.Generator().manual_seed(4)).to(device)
    pair_losses = functional.positive_pair_losses(terms, positives, negatives)
    return [
        positives,
        negatives,
        *pair_losses,
        functional.weighted_anchor_mean(pair_losses[0], pair_losses[1], pair_losses[0].exp(), rarity.double()),
        functional.anchor_weights(labels, values, 0.5, torch.float64),
        functional.mean_over_labels(labels, values),
        functional.pairwise_temperatures(jaccard, rarity, 0.1, 1.0, 0.3, 0.01),
        functional.pairwise_label_weights(jaccard + 1, jaccard),
        functional.weighted_jaccard_similarity(labels, labels, values),
        functional.sum_over_shared_labels(labels, labels, values),
        functional.sum_over_shared_labels(many, many, costs[0]),
        functional.sum_over_shared_labels(many, many, costs + costs.T),
        functional.masks_from_indices(some_pairs(device), rows, rows, labels.device),
    ]


METRICS = tuple(evaluation.MultiLabelAccuracyCalculator().original_function_dict)


def calculated(device: str, rows: int) -> Any:
    embeddings, labels = batch(device, 2 * rows)
    calculator = evaluation.MultiLabelAccuracyCalculator(
        (*METRICS, "recall_at_k", "precision_at_k", "coverage_at_k"),
        at_k=(1, 3),
        device=device,
        label_statistics=statistics("cpu"),  # a calculator has no .to()
        knn_func=None,
    )
    values = calculator.get_accuracy(embeddings.detach(), labels)
    return torch.tensor([values[name] for name in sorted(values)])


def logged(device: str, rows: int) -> Any:
    metric = evaluation.MultiLabelRetrieval(evaluation.MultiLabelAccuracyCalculator(METRICS[:3])).to(device)
    embeddings, labels = batch(device, rows)
    metric.update(embeddings.detach(), labels)
    values = metric.compute()
    return [values[name].cpu() for name in sorted(values)]


def searched(device: str, rows: int) -> Any:
    torch.manual_seed(0)
    images, (_, labels) = torch.rand(rows, 6), batch("cpu", rows)
    trunk, head = torch.nn.Linear(6, 5).to(device), torch.nn.Linear(5, 3).to(device)
    embedder = inference.JoinedEmbedder.fit(head, trunk(images.to(device)).detach(), num_components=2).to(device)
    model = inference.MultiLabelInferenceModel(trunk, embedder, list("abcde"), data_device=device)
    model.index(images, labels)
    results = model.search(images[:3], k=2, having=["a"])
    augmented = inference.augment_embeddings(embedder(trunk(images.to(device))).detach(), k=2)
    return [*(found.distances for found in results), model.predict_labels(images[:3], k=2), augmented]


def proxy_step(device: str, rows: int) -> Any:
    torch.manual_seed(0)
    loss_fn = losses.ProxyMACLLoss(NUM_CLASSES, 4, label_statistics=statistics(device)).to(device)
    embeddings, labels = batch(device, rows)
    loss = loss_fn(embeddings, labels)
    loss.backward()
    return [loss.detach(), embeddings.grad, loss_fn.proxies.grad]


def sampled(device: str, rows: int) -> Any:
    generator = torch.Generator().manual_seed(0)
    return torch.tensor(list(samplers.LabelBalancedSampler(batch(device, rows)[1], 4, 2, generator=generator)))


def trained(device: str, rows: int) -> Any:
    """An epoch of PML's trainer, and the metrics of PML's tester."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    dataset = TensorDataset(torch.rand(rows, 6, generator=generator), batch("cpu", rows)[1])
    models = {"trunk": torch.nn.Linear(6, 4).to(device)}
    optimizers = {"trunk_optimizer": torch.optim.SGD(models["trunk"].parameters(), lr=0.1)}
    trainer = MetricLossOnly(
        models,
        optimizers,
        rows // 2,
        {"metric_loss": losses.MACLLoss(label_statistics=statistics(device))},
        dataset,
        data_device=device,
        label_hierarchy_level="all",
        dataloader_num_workers=0,
    )
    trainer.train()
    calculator = evaluation.MultiLabelAccuracyCalculator(("mean_average_precision",), device=device)
    tester = testers.MultiLabelEmbeddingSpaceTester(
        data_device=device, dataloader_num_workers=0, accuracy_calculator=calculator
    )
    metrics = tester.test({"val": dataset}, 1, models["trunk"])["val"]
    return [models["trunk"].weight.detach(), torch.tensor(metrics["mean_average_precision"])]


PARTS = {
    "macl": Part((losses.MACLLoss,), step_of(lambda device: losses.MACLLoss(label_statistics=statistics(device)))),
    "macl, frequency Jaccard": Part(
        (FrequencyWeightedJaccard,), step_of(lambda device: losses.MACLLoss(relation=jaccard_of(device)))
    ),
    "proxies": Part((losses.ProxyMACLLoss,), proxy_step),
    "macl, learnt counts and statistics": Part((), step_of(lambda device: losses.MACLLoss(NUM_CLASSES))),
    "macl, weights of labels": Part(
        (reducers.FrequencyWeightedReducer, reducers.PairWeightedReducer),
        step_of(lambda device: losses.MACLLoss(reducer=reducers.FrequencyWeightedReducer(level="label"))),
    ),
}
PARTS |= {
    loss.__name__: Part((loss, *others), step_of(lambda device, loss=loss: loss()))
    for loss, *others in (
        (losses.SupConAnyLoss, losses.MultiLabelContrastiveLoss),
        (losses.SupConExactLoss,),
        (losses.MultiSupConLoss,),
        (losses.JaccardSupConLoss,),
        (losses.MulSupConLoss, reducers.MulSupConReducer),
        (losses.SimilarityDissimilarityLoss, reducers.SimilarityDissimilarityReducer),
    )
}
PARTS |= {
    "memory": Part((losses.MultiLabelCrossBatchMemory,), memory_step),
    "one process": Part((losses.MultiLabelDistributedLossWrapper,), shared_step),
    "wrapped triplet loss": Part(
        (losses.MultiLabelLossWrapper,), wrapped_step(pml_losses.TripletMarginLoss()), reads=4
    ),
    "wrapped contrastive loss": Part(
        (), wrapped_step(pml_losses.ContrastiveLoss(), relation=same_first_label), reads=6
    ),
    "wrapped NT-Xent loss": Part((), wrapped_step(pml_losses.NTXentLoss()), reads=4),
    "miner, all pairs": Part((miners.LabelOverlapMiner,), mined(miners.LabelOverlapMiner), reads=2),
    "miner, hard triplets": Part(
        (),
        mined(
            lambda: miners.LabelOverlapMiner(
                pos_strategy="random",
                neg_strategy="hard",
                max_positives_per_anchor=2,
                max_negatives_per_anchor=2,
                output="triplets",
            )
        ),
        reads=3,
    ),
    "wrapped miner": Part(
        (miners.MultiLabelMinerWrapper,),
        mined(lambda: miners.MultiLabelMinerWrapper(pml_miners.MultiSimilarityMiner())),
        reads=6,
    ),
    "constant temperature": Part(
        (distances.ConstantTemperature, distances.TemperatureScheduledSimilarity, distances.TemperatureSchedule),
        scheduled(lambda: distances.ConstantTemperature(0.1)),
    ),
    "cosine temperature": Part(
        (distances.CosineTemperature, distances.ScheduledTemperature),
        scheduled(lambda: distances.CosineTemperature(0.2, 0.1, 10)),
    ),
    "linear temperature": Part(
        (distances.LinearTemperature,), scheduled(lambda: distances.LinearTemperature(0.2, 0.1, 10))
    ),
    "learnable temperature": Part(
        (distances.LearnableTemperature,), scheduled(lambda: distances.LearnableTemperature(0.1))
    ),
    "pairs": Part(
        (
            Pairs,
            pml_macl.PairBlock,
            LabelSets,
            pml_macl.check_labels,
            pml_macl.jaccard_similarity,
            pml_macl.shared_label_counts,
        ),
        pairs_of,
        reads=2,
    ),
    "counts": Part((LabelStatistics,), counted_labels),
    "functions": Part(tuple(getattr(functional, name) for name in functional.__all__), functions, reads=5),
    "calculator": Part(
        tuple(getattr(evaluation, name) for name in evaluation.__all__ if name != "MultiLabelRetrieval"),
        calculated,
        reads=44,
    ),
    "torchmetrics": Part((evaluation.MultiLabelRetrieval,), logged, reads=23),
    "search": Part(tuple(getattr(inference, name) for name in inference.__all__), searched, reads=5),
    "sampler": Part((samplers.LabelBalancedSampler,), sampled, reads=1),
    "trainer and tester": Part((testers.MultiLabelEmbeddingSpaceTester,), trained, reads=21),
}
ON_THE_CPU = {getattr(datasets, name) for name in datasets.__all__}  # files and their label tables


def to_cpu(result: Any) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result.detach().cpu()]
    return [tensor for part in result for tensor in to_cpu(part)]


def label_sets_of(rows: torch.Tensor, table: torch.Tensor, threshold: float, relation: Any = None) -> LabelSets:
    """What ``LabelSets`` makes. torch makes no subclass of a tensor of the stand-in, so the shell is on the CPU."""
    sets = torch.Tensor._make_subclass(LabelSets, rows.value if isinstance(rows, OtherTensor) else rows)
    sets._rows, sets._table, sets.threshold, sets.relation = rows, table, threshold, relation
    return sets


@pytest.fixture
def without_waiting(monkeypatch):
    """As in a training that has passed its first checks."""
    monkeypatch.setattr(deferred_check, "SYNCHRONOUS_CHECKS", 0)
    monkeypatch.setattr(LabelSets, "_of_rows", label_sets_of)


@needs_other_device
@pytest.mark.parametrize("name", PARTS)
def test_it_computes_the_same_there_and_waits_seldom(name, without_waiting):
    part, reads = PARTS[name], []
    for rows in (8, 16):
        expected = to_cpu(part.run("cpu", rows))
        with OtherDevice() as device:
            result = part.run("cuda", rows)
            reads.append(list(device.reads))
            found = to_cpu(result)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7, equal_nan=True)
    assert [len(names) for names in reads] == [part.reads, part.reads], reads


def test_the_stand_in_works_with_recent_releases():
    """Otherwise the tests above would be skipped everywhere."""
    assert WORKS or tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9)


def test_every_public_object_runs_there():
    covered = {thing for part in PARTS.values() for thing in part.covers}
    missing = {name for name, thing in public_objects().items() if thing not in covered | ON_THE_CPU}
    assert missing == set()
