"""torch.compile with inductor, which needs a C++ compiler."""

import os
import shutil

import pytest
import torch
from ecosystem.recipe import recipe, run

from pml_macl import LabelStatistics
from pml_macl.losses import MACLLoss

pytestmark = [
    pytest.mark.skipif("PML_MACL_ECOSYSTEM" not in os.environ, reason="compiles for long; run: nox -s ecosystem"),
    pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler, found no g++"),
    pytest.mark.filterwarnings("default"),  # inductor and its generated code warn
]
LABELS = torch.rand(32, 6, generator=torch.Generator().manual_seed(1)) < 0.3


def loss_and_gradient(compiled):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
    loss_fn = MACLLoss(label_statistics=LabelStatistics.from_labels(LABELS))
    images = torch.randn(32, 16)
    forward = torch.compile(model) if compiled == "model" else model
    loss_of = torch.compile(loss_fn) if compiled == "loss" else loss_fn

    def step(images, labels):
        return loss_of(forward(images), labels)

    loss = (torch.compile(step, fullgraph=True) if compiled == "step" else step)(images, LABELS)
    loss.backward()
    return loss.detach(), model[0].weight.grad


@pytest.mark.parametrize("compiled", ["model", "loss", "step"])
def test_values_and_gradients_equal_those_without_compilation(compiled):
    torch.testing.assert_close(loss_and_gradient(compiled), loss_and_gradient(None))


def test_recipe():
    assert run(recipe("torch.compile"))["model"].weight.grad.abs().sum() > 0
