"""The command that measures a GPU, without its measurements, which other tests run."""

import json
from pathlib import Path

import evaluation
import evaluation_scale
import gpu
import loss
import pytest
import torch

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def test_it_measures_everything_on_the_device_and_writes_the_page(tmp_path, monkeypatch):
    measured = {}

    def stand_in(name):
        def run(output, *settings):
            measured[name] = settings
            lines = [json.loads(line) for line in (RESULTS / name).read_text().splitlines()]
            output.write_text("".join(json.dumps({**line, "machine": "A100"}) + "\n" for line in lines))

        return run

    monkeypatch.setattr(loss, "run", stand_in("loss.jsonl"))
    monkeypatch.setattr(evaluation_scale, "run", stand_in("evaluation_scale.jsonl"))
    monkeypatch.setattr(
        evaluation, "compare", lambda options: stand_in("evaluation.jsonl")(options.lines, options.device)
    )
    gpu.main(["--output", str(tmp_path), "--device", "cpu", "--largest", "128", "--references", "10", "--repeats", "1"])
    assert measured == {
        "loss.jsonl": ("cpu", 1, 128),
        "evaluation.jsonl": ("cpu",),
        "evaluation_scale.jsonl": ([10], 10, 1, "cpu"),
    }
    page = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert "All numbers are from A100." in page
    assert "on A100 (computed from the fit)" in page
    assert "This command writes this page:\n\n```\npython benchmarks/gpu.py --output FOLDER\n```" in page


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main(["--output", str(tmp_path)])
    assert "torch finds no GPU; install a build of torch with CUDA" in capsys.readouterr().err
