"""PML's wrappers of losses around MACLLoss and multi-hot labels; DistributedLossWrapper is in test_distributed.py."""

import pytest
import torch
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners
from pytorch_metric_learning.losses import MultipleLosses, SelfSupervisedLoss
from pytorch_metric_learning.trainers import MetricLossOnly
from pytorch_metric_learning.utils.logging_presets import HookContainer, get_record_keeper

from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.losses import JaccardSupConLoss, MACLLoss, MultiLabelCrossBatchMemory, MultiLabelLossWrapper
from pml_macl.miners import LabelOverlapMiner, MultiLabelMinerWrapper
from pml_macl.reducers import FrequencyWeightedReducer


@pytest.fixture
def batch(generator):
    labels = torch.rand(12, 5, generator=generator) < 0.35
    return torch.randn(12, 8, dtype=torch.float64, generator=generator, requires_grad=True), labels


def gradient(loss, embeddings):
    return torch.autograd.grad(loss, embeddings)[0]


def assert_same(found, expected, embeddings):
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, embeddings), gradient(expected, embeddings))


class TestMultipleLosses:
    def test_is_the_weighted_sum(self, batch):
        embeddings, labels = batch
        miner = LabelOverlapMiner(neg_strategy="hard", max_negatives_per_anchor=2)
        both = MultipleLosses([MACLLoss(), JaccardSupConLoss()], miners=[miner, None], weights=[2, 0.5])
        expected = 2 * MACLLoss()(embeddings, labels, miner(embeddings, labels))
        expected = expected + 0.5 * JaccardSupConLoss()(embeddings, labels)
        assert_same(both(embeddings, labels), expected, embeddings)

    def test_takes_names_and_a_miner_for_all(self, batch):
        embeddings, labels = batch
        indices = LabelOverlapMiner(pos_strategy="easy")(embeddings, labels)
        losses = {"macl": MACLLoss(), "triplet": MultiLabelLossWrapper(pml_losses.TripletMarginLoss())}
        found = MultipleLosses(losses, weights={"macl": 1, "triplet": 3})(embeddings, labels.long(), indices)
        expected = losses["macl"](embeddings, labels, indices) + 3 * losses["triplet"](embeddings, labels, indices)
        assert_same(found, expected, embeddings)

    def test_each_loss_keeps_its_own_statistics(self, batch):
        learning, other = MACLLoss(num_classes=5), MACLLoss(num_classes=5)
        both = MultipleLosses([learning, MultipleLosses([other, MACLLoss()])])
        both(*batch)
        assert learning.label_statistics.num_samples == 12
        assert other.label_statistics.num_samples == 12
        assert {name.split(".")[-1] for name in both.state_dict()} >= {"counts", "cooccurrence", "num_samples"}

    def test_trains_and_records(self, tmp_path):
        labels = torch.rand(24, 5, generator=torch.Generator().manual_seed(0)) < 0.4
        dataset = torch.utils.data.TensorDataset(torch.randn(24, 6), labels)
        records, _, _ = get_record_keeper(str(tmp_path / "records"))
        hooks = HookContainer(records, save_models=False, log_freq=1)
        memory = MultiLabelCrossBatchMemory(MACLLoss(num_classes=5), 4, 5, 32)
        losses = MultipleLosses({"batch": MACLLoss(num_classes=5), "queue": memory}, weights={"batch": 1, "queue": 0.5})
        trunk = torch.nn.Linear(6, 4)
        trainer = MetricLossOnly(
            {"trunk": trunk},
            {"trunk_optimizer": torch.optim.SGD(trunk.parameters(), lr=0.1)},
            12,
            {"metric_loss": losses},
            dataset,
            label_hierarchy_level="all",
            dataloader_num_workers=0,
            data_device="cpu",
            end_of_iteration_hook=hooks.end_of_iteration_hook,
        )
        trainer.train(num_epochs=2)
        assert memory.num_enqueued == 48
        records.save_records()
        assert len(hooks.get_loss_history()["total_loss"]) == 4


class TestTwoViewsOfAnImage:
    """PML's SelfSupervisedLoss makes one class per image, so label sets go to the loss itself, in one of two ways."""

    def test_pml_refuses_the_losses_by_name(self):
        for loss in (MACLLoss(), MultiLabelLossWrapper(pml_losses.ContrastiveLoss())):
            with pytest.raises(Exception, match=f"SelfSupervisedLoss not supported for {type(loss).__name__}"):
                SelfSupervisedLoss(loss)

    def plain(self):
        return MACLLoss(
            distance=TemperatureScheduledSimilarity(overlap_scale=0, rarity_scale=0),
            reducer=FrequencyWeightedReducer(power=0),
        )

    @pytest.mark.parametrize("symmetric", [True, False])
    def test_one_label_an_image_is_what_pml_does(self, batch, symmetric, generator):
        first, _ = batch
        second = torch.randn(12, 8, dtype=torch.float64, generator=generator)
        expected = SelfSupervisedLoss(pml_losses.SupConLoss(temperature=0.2), symmetric=symmetric)(first, second)
        images = torch.eye(12)
        if symmetric:
            found = self.plain()(torch.cat([first, second]), torch.cat([images, images]))
        else:
            found = self.plain()(first, images, ref_emb=second, ref_labels=images)
        assert_same(found, expected, first)

    def test_concatenated_views_meet_all_others(self, batch, generator):
        """Each view is an anchor; its positives are its other view and both views of images that share a label."""
        first, labels = batch
        second = torch.randn(12, 8, dtype=torch.float64, generator=generator)
        views, sets = torch.cat([first, second]), torch.cat([labels, labels])
        a1, p, a2, n = LabelOverlapMiner()(views, sets)
        pairs = set(zip(a1.tolist(), p.tolist(), strict=True))
        assert all((i, i + 12) in pairs and (i + 12, i) in pairs for i in range(12) if labels[i].any())
        assert not any((i, i) in pairs for i in range(24))
        negatives = set(zip(a2.tolist(), n.tolist(), strict=True))
        assert not any((i, (i + 12) % 24) in negatives for i in range(24) if sets[i].any())
        assert_same(MACLLoss()(views, sets), MACLLoss()(views, sets, (a1, p, a2, n)), first)

    def test_references_are_the_other_views(self, batch, generator):
        """The first views are the anchors; the other view of the same image is one of the positives."""
        first, labels = batch
        second = torch.randn(12, 8, dtype=torch.float64, generator=generator)
        a1, p, _, _ = LabelOverlapMiner()(first, labels, second, labels)
        pairs = set(zip(a1.tolist(), p.tolist(), strict=True))
        assert all(((i, i) in pairs) == bool(labels[i].any()) for i in range(12))
        loss_fn = MACLLoss(num_classes=5)
        loss_fn(first, labels, ref_emb=second, ref_labels=labels)
        assert loss_fn.label_statistics.num_samples == 12  # an image is counted once, not once a view


@pytest.mark.parametrize("loss", ["ContrastiveLoss", "SupConLoss", "MultiSimilarityLoss"])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_wrapped_pml_losses_in_the_memory(loss, threshold, generator):
    """Equal to the wrapped loss on the pairs of the batch and the queue without those of a row and its own copy."""
    make = getattr(pml_losses, loss)
    memory = MultiLabelCrossBatchMemory(MultiLabelLossWrapper(make(), threshold), 4, 5, 9)
    queue = torch.zeros(0, 4), torch.zeros(0, 5, dtype=torch.bool)
    for size in (5, 3, 6, 9, 2):
        embeddings = torch.randn(size, 4, dtype=torch.float64, generator=generator, requires_grad=True)
        labels = torch.rand(size, 5, generator=generator) < 0.4
        queue = torch.cat([queue[0], embeddings.detach()])[-9:], torch.cat([queue[1], labels])[-9:]
        miner = LabelOverlapMiner(positive_threshold=threshold, negative_threshold=1)
        a1, p, a2, n = miner(embeddings, labels, *queue)
        own = torch.arange(size) + len(queue[0]) - size
        pairs = (a1[p != own[a1]], p[p != own[a1]], a2[n != own[a2]], n[n != own[a2]])
        expected = MultiLabelLossWrapper(make(), threshold)(embeddings, labels, pairs, *queue)
        assert_same(memory(embeddings, labels), expected, embeddings)


@pytest.mark.parametrize("miner", ["MultiSimilarityMiner", "TripletMarginMiner", "BatchEasyHardMiner"])
def test_wrapped_pml_miners_in_the_memory(miner, generator):
    """They choose pairs that are right: sharing a label or not, and not of a row and its own copy."""
    chosen = []

    class Recorder(MACLLoss):
        def forward(self, embeddings, labels, indices_tuple, ref_emb, ref_labels):
            for a, others, shared in ((0, 1, True), (-2 if len(indices_tuple) == 4 else 0, -1, False)):
                anchors, columns = indices_tuple[a], indices_tuple[others]
                assert ((labels[anchors] & ref_labels[columns]).any(dim=1) == shared).all()
                assert (embeddings[anchors] != ref_emb[columns]).any(dim=1).all()
                chosen.append(len(anchors))
            return super().forward(embeddings, labels, indices_tuple, ref_emb, ref_labels)

    memory = MultiLabelCrossBatchMemory(Recorder(), 4, 5, 9, miner=MultiLabelMinerWrapper(getattr(miners, miner)()))
    for size in (5, 3, 6, 9):
        embeddings = torch.randn(size, 4, generator=generator)
        memory(embeddings, torch.rand(size, 5, generator=generator) < 0.4)
    assert sum(chosen) > 10
