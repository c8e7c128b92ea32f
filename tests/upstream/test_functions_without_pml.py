"""The mathematics runs without pytorch-metric-learning, so it can move into PML unchanged."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pytorch_metric_learning", "sklearn", "faiss", "tqdm", "record_keeper"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())

import torch
import pml_macl
from pml_macl import functional
from pml_macl.engine import Terms, contrastive_loss
from pml_macl.pairs import Pairs

for module in ("functional", *(f"functional.{x.name}" for x in pkgutil.iter_modules(functional.__path__)),
               "labels", "label_sets", "label_table", "statistics", "checks", "pairs", "pair_observer",
               "deferred_check", "engine", "relations", "frequency_weighted_jaccard", "batch_share", "gather"):
    importlib.import_module("pml_macl." + module)

called = set()
def record(frame, event, argument):
    modules = ("pml_macl.functional", "pml_macl.label_table")
    if event == "call" and frame.f_globals.get("__name__", "").startswith(modules):
        called.add(frame.f_code.co_name)

labels = torch.rand(6, 4) < 0.6
labels[:, 0] = True
embeddings = torch.nn.functional.normalize(torch.randn(6, 3)).requires_grad_()
statistics = pml_macl.LabelStatistics.from_labels(labels)
jaccard = pml_macl.jaccard_similarity(labels)
shared = pml_macl.shared_label_counts(labels)
rarity = statistics.label_rarity()

sys.setprofile(record)
positives, negatives = functional.positive_negative_masks(shared, jaccard, exclude_self=True)
indices = (*positives.nonzero(as_tuple=True), *negatives.nonzero(as_tuple=True))
masks = functional.masks_from_indices(indices, 6, 6, labels.device)
anchor_rarity = functional.mean_over_labels(labels, rarity)
temperatures = functional.pairwise_temperatures(jaccard, anchor_rarity, 0.1, 1.0, 0.3, 0.01)
sums = functional.sum_over_shared_labels(labels, labels, statistics.inverse_cooccurrence())
weights = functional.pairwise_label_weights(sums, jaccard)
anchors_count = functional.anchor_weights(labels, statistics.inverse_frequency(), 0.5, torch.float32)
losses, anchors, others = functional.positive_pair_losses(embeddings @ embeddings.T / temperatures, *masks)
functional.weighted_jaccard_similarity(labels, labels, statistics.inverse_frequency())
loss = functional.weighted_anchor_mean(losses, anchors, weights[anchors, others].float(), anchors_count)
sys.setprofile(None)

# The engine gets the same pairs, with the formulas as its terms.
terms = Terms(
    lambda block: functional.pairwise_temperatures(block.jaccard, anchor_rarity.float()[block.rows], 0.1, 1, 0.3, 0.01),
    lambda block: block.sum_over_shared(statistics.inverse_cooccurrence(torch.float32)),
    anchors_count,
)
fused = contrastive_loss(embeddings, None, Pairs(labels), terms)

torch.testing.assert_close(fused, loss.float())
one, = torch.autograd.grad(loss, embeddings)
other, = torch.autograd.grad(fused, embeddings)
torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
missing = {name for name in functional.__all__ if name[0].islower()} - called
assert not missing, f"not run: {missing}"
assert not any(name.startswith("pytorch_metric_learning") for name in sys.modules)
print("ok")
"""


def test_each_function_runs_and_agrees():
    result = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "ok"
