"""The Accelerate loop of docs/use/training_loops.md, in one process and in two."""

import subprocess
import sys

import pytest
import torch
from ecosystem.recipe import recipe, run
from torch.nn.functional import normalize

from pml_macl import MultiLabelAccuracyCalculator

accelerate = pytest.importorskip("accelerate", reason="needs Accelerate; run: nox -s ecosystem")
pytestmark = pytest.mark.filterwarnings("default")  # Accelerate and torch warn about each other

METRICS = ("ndcg", "label_mean_average_precision")
CODE = recipe("Hugging Face Accelerate").replace("Accelerator()", "Accelerator(cpu=True)")
# Two processes: 99 images in batches of 25 are not divisible by 2, so samplers repeat an image.
SCRIPT = CODE.replace("SyntheticScenes(100, seed=1)", "SyntheticScenes(99, seed=1)").replace(
    "DataLoader(val_set, batch_size=50)", "DataLoader(val_set, batch_size=25)"
)
REPORT = """
images, labels = (torch.stack(column) for column in zip(*val_set))
with torch.no_grad():
    embeddings = torch.nn.functional.normalize(accelerator.unwrap_model(model)(images))
expected = calculator.get_accuracy(embeddings, labels)
assert accelerator.num_processes == 2
difference = max(abs(found[name].item() - value) for name, value in expected.items())
with open(f"{accelerator.process_index}.txt", "w") as file:
    file.write(str(difference))
torch.distributed.destroy_process_group()
"""


@pytest.fixture(autouse=True)
def fresh_accelerator():
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def run_recipe(code, folder, monkeypatch):
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    return run(code)


def expected_metrics(names):
    images, labels = zip(*names["val_set"], strict=True)
    with torch.no_grad():
        embeddings = names["model"].eval()(torch.stack(images))
    return MultiLabelAccuracyCalculator(METRICS).get_accuracy(normalize(embeddings.float()), torch.stack(labels))


def test_metrics_equal_the_calculator_after_loading_the_checkpoint(tmp_path, monkeypatch):
    names = run_recipe(CODE, tmp_path, monkeypatch)
    found = {name: value.item() for name, value in names["found"].items()}
    assert found == pytest.approx(expected_metrics(names), abs=1e-6)


def test_checkpoint_holds_the_state_of_the_loss(tmp_path, monkeypatch):
    counting = CODE.replace("MACLLoss(label_statistics=LabelStatistics.from_labels(train_set.labels))", "MACLLoss(12)")
    names = run_recipe(counting, tmp_path, monkeypatch)
    statistics = names["loss_fn"].label_statistics
    assert statistics.num_samples == 400
    statistics.num_samples.zero_()
    names["accelerator"].load_state("checkpoint")
    assert statistics.num_samples == 400


def test_bfloat16(tmp_path, monkeypatch):
    names = run_recipe(CODE.replace("cpu=True", "cpu=True, mixed_precision='bf16'"), tmp_path, monkeypatch)
    assert names["loss"].dtype is torch.float32
    assert names["found"]["ndcg"].item() == pytest.approx(expected_metrics(names)["ndcg"], abs=0.02)


def test_two_processes_see_each_image_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + REPORT, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    ended = subprocess.run(launch, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert max(float((tmp_path / f"{rank}.txt").read_text()) for rank in range(2)) < 1e-6
