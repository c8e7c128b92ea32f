from pathlib import Path

import post_processing
import pytest
import retrieval
import torch
from post_processing import VARIANTS, expand
from retrieval_findings import METRICS, RECALLS
from training import read_runs

ROOT = Path(__file__).resolve().parents[2]


def test_expanded_queries_equal_a_loop():
    generator = torch.Generator().manual_seed(0)
    queries, archive = (torch.nn.functional.normalize(torch.randn(n, 4, generator=generator)) for n in (3, 9))
    for query, found in zip(queries, expand(queries, archive, 2), strict=True):
        similarities = [float(query @ other) for other in archive]
        nearest = sorted(range(9), key=lambda j: -similarities[j])[:2]
        expected = query + sum(max(similarities[j], 0) ** 3 * archive[j] for j in nearest)
        assert torch.allclose(found, expected / expected.norm(), atol=1e-6)


def test_stored_embeddings_are_measured_once_and_reported(data, tmp_path, monkeypatch):
    pytest.importorskip("faiss")  # augment_embeddings searches with it
    monkeypatch.setattr(post_processing, "NEIGHBOURS", (2, 3))
    head, output = tmp_path / "head", tmp_path / "out"
    few = ["--losses", "MACL", "Features, no training", "--seeds", "1", "--epochs", "1", "--batch-size", "16"]
    retrieval.main(["run", "--data", str(data), "--output", str(head), *few])
    for _ in range(2):
        post_processing.main(["run", "--runs", str(head), "--output", str(output)])
    runs = read_runs(output)
    assert [run["variant"] for run in runs] == 2 * list(VARIANTS)
    assert len({run["k"] for run in runs}) == 1
    assert all(run["metrics"].keys() == METRICS.keys() for run in runs)
    assert all(run["recall"].keys() >= RECALLS.keys() for run in runs)
    page = tmp_path / "page.md"
    post_processing.main(["report", "--output", str(output), "--page", str(page)])
    text = page.read_text(encoding="utf-8")
    assert "| MACL | " in text
    assert "By the mean of the metrics, " in text


def test_the_page_says_what_the_runs_say(tmp_path):
    folder = ROOT / "benchmarks" / "results" / "post_processing"
    post_processing.main(["report", "--output", str(folder), "--page", str(tmp_path / "post_processing.md")])
    page = ROOT / "docs" / "results" / "post_processing.md"
    assert (tmp_path / "post_processing.md").read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
