import copy
import pickle

import pytest
import torch

from pml_macl.deferred_check import SYNCHRONOUS_CHECKS, DeferredCheck
from pml_macl.labels import check_labels


def test_on_a_cpu_it_raises_at_once():
    check = DeferredCheck()
    check(torch.tensor(False), "rows must fit")
    with pytest.raises(ValueError, match=r"^rows must fit, got 7$"):
        check(torch.tensor(True), "rows must fit", ", got 7")


def test_a_late_failure_is_raised_by_the_next_call_and_then_forgotten(device):
    """A GPU uses look_later after the first checks; on a CPU the copy of the result arrives immediately."""
    check = DeferredCheck()
    good, bad = (torch.tensor(failed, device=device) for failed in (False, True))
    check.look_later(good, "labels must be 0 or 1")
    check.look_later(bad, "labels must be 0 or 1")
    if device.type == "cuda":
        torch.cuda.synchronize()
    with pytest.raises(
        ValueError, match="labels must be 0 or 1, but those of an earlier batch do not; check the labels and pairs"
    ):
        check.look_later(good, "indices must fit")  # another condition
    check.look_later(good, "labels must be 0 or 1")
    check.look_later(good, "labels must be 0 or 1")


def test_a_failure_is_kept_until_its_copy_arrives(monkeypatch):
    check, arrived = DeferredCheck(), []
    monkeypatch.setattr(check, "_is_set", lambda on_host: bool(arrived) and bool(on_host))
    check.look_later(torch.tensor(True), "labels must fit")
    check.look_later(torch.tensor(False), "labels must fit")
    arrived.append(True)
    with pytest.raises(ValueError, match="earlier batch"):
        check.look_later(torch.tensor(False), "labels must fit")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda check: pickle.loads(pickle.dumps(check))])
def test_a_copy_starts_anew(duplicate):
    check = DeferredCheck()
    check.look_later(torch.tensor(True), "rows must fit")
    duplicate(check).look_later(torch.tensor(False), "rows must fit")


def test_labels_on_a_cpu_name_the_value_in_training_too():
    with pytest.raises(ValueError, match="only 0 and 1, got 2; threshold"):
        check_labels(torch.full((2, 3), 2), deferred=DeferredCheck())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_wrong_labels_leave_the_gpu_usable():
    check = DeferredCheck()
    wrong = torch.full((2, 3), 2, device="cuda")
    raised = 0
    for _ in range(40):
        try:
            check_labels(wrong, deferred=check)
        except ValueError:
            raised += 1
        torch.cuda.synchronize()
    assert raised > SYNCHRONOUS_CHECKS
    assert torch.ones(3, device="cuda").sum() == 3
