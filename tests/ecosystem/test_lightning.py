"""The Lightning module of docs/use/training_loops.md."""

import pytest
import torch
from ecosystem.recipe import recipe, run
from torch.nn.functional import normalize

from pml_macl import MultiLabelAccuracyCalculator

pytest.importorskip("lightning", reason="needs Lightning; run: nox -s ecosystem")
pytestmark = pytest.mark.filterwarnings("default")  # Lightning gives advice (workers, loggers) as warnings

METRICS = ("ndcg", "label_mean_average_precision")
CODE = recipe("Lightning").replace(
    "lightning.Trainer(", "lightning.Trainer(accelerator='cpu', enable_progress_bar=False, "
)


def expected_metrics(names):
    images, labels = zip(*names["val_set"], strict=True)
    with torch.no_grad():
        embeddings = names["module"].cpu().eval().model(torch.stack(images))
    return MultiLabelAccuracyCalculator(METRICS).get_accuracy(normalize(embeddings), torch.stack(labels))


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("lightning"))
        torch.manual_seed(0)
        return run(CODE)


def test_logged_metrics_equal_the_calculator(names):
    logged = {name: value.item() for name, value in names["trainer"].callback_metrics.items() if name in METRICS}
    assert logged == pytest.approx(expected_metrics(names), abs=1e-6)  # sums of other batch sizes


def test_checkpoint_restores_model_and_label_statistics(names):
    restored = names["restored"]
    last, best = names["trainer"].callback_metrics["ndcg"].item(), names["checkpoint"].best_model_score.item()
    assert last <= best < last + 0.1
    assert restored.loss_fn.label_statistics.num_samples in (200, 400)  # the best epoch is the first or the second
    assert restored.state_dict().keys() == names["module"].state_dict().keys()
    assert not [name for name in restored.state_dict() if name.startswith("retrieval")]  # embeddings are not saved


def test_the_metric_object_cannot_be_logged_itself(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = "self.log_dict(self.retrieval.compute())\n        self.retrieval.reset()"
    assert line in CODE
    with pytest.raises(ValueError, match="metric logged as 'retrieval' must be a tensor"):
        run(CODE.replace(line, "self.log('retrieval', self.retrieval)"))


def test_bfloat16(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = run(CODE.replace("lightning.Trainer(", "lightning.Trainer(precision='bf16-mixed', "))
    found = names["trainer"].callback_metrics
    assert found["loss"].dtype is torch.float32
    assert found["loss"].isfinite()
    assert found["ndcg"].item() == pytest.approx(expected_metrics(names)["ndcg"], abs=0.02)  # rounding of embeddings
