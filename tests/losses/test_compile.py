"""torch.compile of a training step with the loss."""

import pytest
import torch
from torch import nn

from pml_macl import LabelStatistics, losses
from pml_macl.distances import LearnableTemperature, TemperatureScheduledSimilarity

LABELS = torch.rand(16, 5, generator=torch.Generator().manual_seed(1)) < 0.4
IN_ONE_GRAPH = {
    "macl, given frequencies": lambda: losses.MACLLoss(label_statistics=LabelStatistics.from_labels(LABELS)),
    "macl, learnt frequencies": lambda: losses.MACLLoss(5),
    "proxies": lambda: losses.ProxyMACLLoss(5, 4, LabelStatistics.from_labels(LABELS)),
    "supcon any": lambda: losses.SupConAnyLoss(label_statistics=LabelStatistics.from_labels(LABELS)),
    "mulsupcon": lambda: losses.MulSupConLoss(label_statistics=LabelStatistics.from_labels(LABELS)),
}
# These cases break the graph: the check of integer labels reads their values, frequencies of the batch create a module,
# and the forward pass computes the gradient of a learnable temperature.
IN_SEVERAL = {
    "frequencies of the batch": (losses.MACLLoss, torch.bool),
    "integers": (lambda: losses.MACLLoss(5), torch.long),
    "learnable temperature": (
        lambda: losses.MACLLoss(5, distance=TemperatureScheduledSimilarity(schedule=LearnableTemperature())),
        torch.bool,
    ),
}

pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6),
    reason="older compilers cannot trace torch.autograd.Function",
)


def step_and_gradient(make, labels, compiled, **options):
    torch.manual_seed(0)
    network, loss_fn, images = nn.Linear(8, 4), make(), torch.randn(16, 8)

    def step(images, labels):
        return loss_fn(network(images), labels)

    loss = (torch.compile(step, backend="aot_eager", **options) if compiled else step)(images, labels)
    loss.backward()
    return loss, network.weight.grad


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", IN_ONE_GRAPH)
def test_a_step_is_one_graph(name):
    expected = step_and_gradient(IN_ONE_GRAPH[name], LABELS, compiled=False)
    found = step_and_gradient(IN_ONE_GRAPH[name], LABELS, compiled=True, fullgraph=True)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", IN_SEVERAL)
def test_graph_breaks_change_nothing(name):
    make, dtype = IN_SEVERAL[name]
    labels = LABELS.to(dtype)
    expected = step_and_gradient(make, labels, compiled=False)
    torch.testing.assert_close(step_and_gradient(make, labels, compiled=True), expected)
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported):
        step_and_gradient(make, labels, compiled=True, fullgraph=True)
