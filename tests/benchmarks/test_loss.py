import json
import shutil
from pathlib import Path

import loss
import pytest
from loss_cases import BANKS, CASES, MACL, PARTS, STATS, TRAIN, TRAIN_CASES, Case

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path("benchmarks") / "results"
LINE = {"device": "cpu", "torch": "2", "python": "3"}


@pytest.mark.parametrize("case", [Case(16), Case(16, references=32, classes=5), TRAIN_CASES[0]], ids=str)
def test_everything_that_is_measured_runs(case):
    embeddings, found = loss.contenders(case, "cpu")
    for name, part in found.items():
        value = part(embeddings.clone().requires_grad_())
        if name in loss.WITH_MEMORY:
            assert value.isfinite(), name
            assert value.requires_grad, name
    assert (set(BANKS.values()) <= found.keys()) == bool(case.references)
    assert ({STATS, TRAIN} <= found.keys()) == (case in TRAIN_CASES)


def test_the_training_example_computes_the_loss_of_all_pairs():
    embeddings, found = loss.contenders(TRAIN_CASES[0], "cpu")
    assert found[TRAIN](embeddings).item() == pytest.approx(found[MACL](embeddings).item(), rel=1e-5)


def test_the_memory_bank_is_full_before_the_first_step(monkeypatch):
    banks = []

    class Bank(loss.losses.MultiLabelCrossBatchMemory):
        def add_to_memory(self, *rows):
            super().add_to_memory(*rows)
            banks.append(self)

    monkeypatch.setattr(loss.losses, "MultiLabelCrossBatchMemory", Bank)
    loss.contenders(Case(16, references=64), "cpu")
    assert [(bank.memory_size, bank.has_been_filled) for bank in banks] == [(64, True)] * len(BANKS)


def test_the_report_compares_the_memory_bank_with_references(tmp_path):
    shutil.copy(ROOT / RESULTS / "evaluation.jsonl", tmp_path)
    lines = []
    for case in CASES:
        sizes = {"rows": case.rows, "references": case.references, "size": case.size, "classes": case.classes}
        for name in (*loss.WITH_MEMORY, *PARTS):
            factor = 3 if name in BANKS.values() else 1
            lines.append({**sizes, **LINE, "name": name, "seconds": 0.01 * factor, "memory": 20 * factor})
    (tmp_path / "loss.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    loss.main(["report", "--output", str(tmp_path / "loss.jsonl"), "--page", str(tmp_path / "page.md")])
    text = (tmp_path / "page.md").read_text()
    for references in (16384, 65536):
        for weights in ("co-occurrences", "labels"):
            assert f"| 512 rows, {references} references | {weights} | 10.0 | 30.0 | 3.00 | 20 | 60 | 3.00 |" in text
    assert f"| {TRAIN} | 10.0 | 1.00 | 20 | 10.0 | 1.00 | 20 |" in text
    assert "A step with MACL takes 1.00 times as long as PML SupCon at 128 rows" in text
    assert "It takes longer than PML SupCon at these sizes: none." in text
    assert "A step takes 3.00 to 3.00 times as long as with `ref_emb`." in text
    for line in lines:
        line["seconds"] *= 2 if line["name"] == MACL else 1
        line["memory"] *= 2 if line["name"] == MACL else 1
    (tmp_path / "loss.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    loss.main(["report", "--output", str(tmp_path / "loss.jsonl"), "--page", str(tmp_path / "page.md")])
    text = (tmp_path / "page.md").read_text()
    assert "A step with MACL takes 2.00 times as long as PML SupCon at 128 rows" in text
    assert "at these sizes: 128 rows (2.00 times); 512 rows (2.00 times)" in text
    assert "At 8192 rows, a step needs 40 MiB with MACL and 20 MiB with PML SupCon." in text
    assert "A step takes 1.50 to 3.00 times as long as with `ref_emb`." in text


def test_the_page_says_what_the_lines_say(tmp_path, monkeypatch):
    shutil.copytree(ROOT / RESULTS, tmp_path / RESULTS)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    page = Path("docs") / "results" / "performance.md"
    loss.main(["report", "--output", str(RESULTS / "loss.jsonl"), "--page", str(page)])
    assert page.read_text(encoding="utf-8") == (ROOT / page).read_text(encoding="utf-8")


def test_no_lines_to_report(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*loss\.jsonl does not exist"):
        loss.main(["report", "--output", str(tmp_path / "loss.jsonl"), "--page", str(tmp_path / "page.md")])
