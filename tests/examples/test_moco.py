import copy

import moco
import torch


def test_moco_trains_and_evaluates(capsys):
    small = {"num-images": 128, "num-test-images": 60, "epochs": 1, "memory-size": 96}
    result = moco.main([word for name, value in small.items() for word in (f"--{name}", str(value))])
    assert 0 < result["before"] < 1
    assert 0 < result["after"] < 1
    assert "label mAP on 60 test images" in capsys.readouterr().out


def test_the_key_encoder_is_a_slow_average():
    model, average = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    before = copy.deepcopy(average)
    moco.update_average(average, model, momentum=0.75)
    torch.testing.assert_close(average.weight, 0.75 * before.weight + 0.25 * model.weight)
    torch.testing.assert_close(average.bias, 0.75 * before.bias + 0.25 * model.bias)
