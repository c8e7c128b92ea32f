"""The stand-in for a GPU: it must compute like the CPU, refuse a mix-up, and see what is read back."""

import pytest
import torch
from other_device import OtherDevice, needs_other_device

pytestmark = needs_other_device


def test_it_computes_and_differentiates_like_the_cpu(generator):
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)

    def run(device):
        leaf = x.to(device).clone().requires_grad_()
        half = leaf[:2]
        result = (half.exp() @ leaf.T).logsumexp(dim=1).sum() + torch.ones(3, device=device, dtype=x.dtype).sum()
        result.backward()
        return result.detach(), leaf.grad

    expected = run("cpu")
    with OtherDevice() as device:
        found = run("cuda")
        assert found[0].device.type == "cuda"
        assert found[1].is_cuda
        assert device.reads == []
        found = [tensor.cpu() for tensor in found]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_views_and_operations_in_place_share_the_numbers():
    with OtherDevice():
        x = torch.zeros(2, 3, device="cuda")
        row = x[0]
        row += 1
        x[:, 2] = 5
        x.fill_diagonal_(7)
        assert x.cpu().tolist() == [[7, 1, 5], [0, 7, 5]]


@pytest.mark.parametrize(
    "mixing",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.ones(3) + x,
        lambda x: x @ torch.ones(3),
        lambda x: torch.where(torch.tensor([True, False, True]), x, x),
        lambda x: torch.cat([x, torch.ones(1)]),
        lambda x: x[torch.tensor([0, 2])],
        lambda x: torch.ones(3)[x.long()],
        lambda x: torch.stack([x, x]).index_select(0, torch.tensor([1])),
    ],
)
def test_a_mix_of_devices_is_refused(mixing):
    with OtherDevice():
        x = torch.zeros(3, device="cuda")
        assert (x + torch.tensor(1.0)).is_cuda  # torch allows a single number of the CPU
        with pytest.raises(RuntimeError, match=r"expected all tensors on one device, got \['cpu', 'cuda:0'\]"):
            mixing(x)


@pytest.mark.parametrize(
    ("reading", "name"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: bool((x > 0).any()), "_local_scalar_dense"),
        (lambda x: float(x[0]), "_local_scalar_dense"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: torch.where(x > 0), "nonzero"),
        (lambda x: x[x > 0], "index"),
        (lambda x: x.masked_select(x > 0), "masked_select"),
        (lambda x: x.unique(), "_unique2"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: x.cpu(), "_to_copy"),
        (lambda x: x.tolist(), "_to_copy"),
        (lambda x: torch.zeros(3).copy_(x), "copy_"),
    ],
)
def test_what_is_read_back_is_seen(reading, name):
    with OtherDevice() as device:
        x = torch.arange(3.0).to("cuda")
        assert device.reads == []  # sending numbers there does not wait
        reading(x)
        assert name in device.reads


def test_numpy_needs_a_copy_first():
    with OtherDevice():
        x = torch.tensor([1.0, 2.0], device="cuda")
        assert x.cpu().numpy().tolist() == [1, 2]
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()


def test_modules_move_there():
    with OtherDevice():
        linear = torch.nn.Linear(2, 2).to("cuda")
        assert linear.weight.device == torch.device("cuda", 0)
        assert linear(torch.ones(1, 2, device="cuda")).is_cuda
        with pytest.raises(RuntimeError, match="one device"):
            linear(torch.ones(1, 2))
