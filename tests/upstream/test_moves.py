"""Try on PML 2.9 what docs/development/upstream.md says about it."""

import re
from pathlib import Path

import pytest
import pytorch_metric_learning
import torch
from parts import OWN_LOSSES, make_batch
from pytorch_metric_learning.losses import BaseMetricLossFunction
from pytorch_metric_learning.miners import BaseMiner
from pytorch_metric_learning.utils import common_functions as c_f

from pml_macl.miners import LabelOverlapMiner

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "development" / "upstream.md").read_text(encoding="utf-8")


@pytest.fixture
def admits_label_sets(monkeypatch):
    """Change the one line of PML 2.9 that has to change."""

    def check_shapes(embeddings, labels):
        if labels is not None and len(embeddings) != len(labels):
            raise ValueError("Number of embeddings must equal number of labels")

    monkeypatch.setattr(c_f, "check_shapes", check_shapes)


def moved(loss_class):
    """Return the loss without this package's ``forward``; PML 2.9 then passes the batch as its own references."""

    class Moved(loss_class):
        forward = BaseMetricLossFunction.forward

        def compute_loss(self, embeddings, labels, indices_tuple, ref_emb, ref_labels):
            if ref_emb is embeddings:
                ref_emb = ref_labels = None
            return super().compute_loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)

    return Moved


@pytest.mark.usefixtures("admits_label_sets")
@pytest.mark.parametrize("name", ["MACLLoss of the batch", "MultiSupConLoss", "MulSupConLoss", "SupConAnyLoss"])
def test_losses_need_no_forward_of_their_own(name):
    loss_class = OWN_LOSSES[name]
    embeddings, labels = make_batch()
    references = make_batch(9, seed=1)
    assert torch.equal(moved(loss_class)()(embeddings, labels), loss_class()(embeddings, labels))
    given = {"ref_emb": references[0], "ref_labels": references[1]}
    assert torch.equal(moved(loss_class)()(embeddings, labels, **given), loss_class()(embeddings, labels, **given))


@pytest.mark.usefixtures("admits_label_sets")
def test_the_miner_needs_no_forward_of_its_own():
    class Moved(LabelOverlapMiner):
        forward = BaseMiner.forward

        def mine(self, embeddings, labels, ref_emb, ref_labels):
            if ref_emb is embeddings:
                ref_emb = ref_labels = None
            return super().mine(embeddings, labels, ref_emb, ref_labels)

    batch, references = make_batch(), make_batch(9, seed=1)
    for given in (batch, (*batch, *references)):
        expected = LabelOverlapMiner(neg_strategy="hard")(*given)
        assert all(map(torch.equal, Moved(neg_strategy="hard")(*given), expected))


def test_without_that_line_pml_refuses_label_sets():
    embeddings, labels = make_batch()
    with pytest.raises(ValueError, match="labels must be a 1D tensor"):
        BaseMetricLossFunction()(embeddings, labels)


def test_files_and_tests_that_the_page_names_are_there():
    paths = re.findall(r"`((?:pml_macl|tests|docs|examples)/[\w/.*-]+)`", PAGE)
    assert len(paths) > 5
    for path in paths:
        assert list(ROOT.glob(path.rstrip("/"))), path


def test_the_tests_have_the_folders_of_the_package():
    folders = {path.name for path in (ROOT / "pml_macl").iterdir() if (path / "__init__.py").is_file()}
    assert folders <= {path.name for path in (ROOT / "tests").iterdir()}


def test_files_of_pml_29_that_the_page_names_are_there_or_new():
    package = Path(pytorch_metric_learning.__file__).parent
    changed = re.findall(r"changes `([\w/]+\.py)`", PAGE)
    added = re.findall(r"adds `([\w/]+\.py)`", PAGE)
    assert changed
    assert added
    assert all((package / path).is_file() for path in changed)
    assert all((package / path).parent.is_dir() and not (package / path).exists() for path in added)
