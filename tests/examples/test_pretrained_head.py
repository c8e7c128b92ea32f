"""The pretrained head: its file, its embeddings, the script that makes it, and a search with it."""

import hashlib

import pretrained_head
import pytest
import search
import torch
import train
from checkpoint import save_file
from models import read_run
from pretrained_head import HEAD, load_pretrained, pretrained_run
from safetensors import safe_open

from pml_macl.datasets import SyntheticScenes
from pml_macl.inference import JoinedEmbedder


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Six scenes and their label table, whose classes are not those of the head."""
    folder = tmp_path_factory.mktemp("archive")
    scenes = SyntheticScenes(6, 128, seed=0)
    search.write_archive(scenes, folder)
    return folder, scenes


def test_the_file_is_small_and_the_model_card_has_its_checksum():
    assert HEAD.stat().st_size < 2 * 2**20
    card = HEAD.with_suffix(".md").read_text(encoding="utf-8")
    assert hashlib.sha256(HEAD.read_bytes()).hexdigest() in card
    with safe_open(HEAD, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118 (no mapping)
        assert file.metadata().keys() == {"run"}
    run = pretrained_run()
    assert run["settings"]["image_size"] == 128
    assert run["settings"]["backbone"] == "efficientnet-lite0"
    assert run["mean"] == pytest.approx([127 / 255] * 3)
    assert run["std"] == pytest.approx([128 / 255] * 3)


def test_half_precision_changes_embeddings_by_less_than_a_thousandth():
    model, _, classes = load_pretrained()
    assert (len(classes), classes[0], classes[-1]) == (17, "airplane", "water")
    with torch.no_grad():
        embedding = torch.nn.functional.normalize(model(SyntheticScenes(1, 128, seed=0)[0][0][None]))[0]
    # The network of the run, before its weights were rounded to half precision.
    expected = torch.tensor([0.131445, -0.030091, 0.022666, -0.137353, 0.128022, -0.093678, -0.054459, 0.147273])
    torch.testing.assert_close(embedding[:8], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("labelled", [True, False], ids=["other classes", "no labels"])
def test_an_index_without_a_run(archive, tmp_path, labelled, capsys):
    folder, scenes = archive
    labels = ["--labels", str(folder / "labels.csv")] if labelled else []
    search.main(["index", "--pretrained", "--images", str(folder / "images"), *labels, "--index", str(tmp_path)])
    assert read_run(tmp_path)["classes"] == (scenes.classes if labelled else pretrained_run()["classes"])
    capsys.readouterr()
    search.main(["query", "--index", str(tmp_path), "--image", str(folder / "images" / "3.png")])
    found = [line.split()[2] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]

    model, _, _ = load_pretrained()
    with torch.no_grad():
        features = model.trunk(torch.stack([image for image, _ in scenes]))
        embeddings = JoinedEmbedder.fit(model.embedder, features, weight=0.5)(features)
    expected = (embeddings - embeddings[3]).norm(dim=1).argsort().tolist()
    assert found == [f"{row}.png" for row in expected if row != 3]


def test_a_run_and_the_head_exclude_each_other(archive, tmp_path, capsys):
    with pytest.raises(SystemExit):
        search.main(["index", "--pretrained", "--run", "runs", "--images", "images", "--index", str(tmp_path)])
    assert "--run: not allowed with argument --pretrained" in capsys.readouterr().err


def test_the_script_writes_the_head_of_its_run(tmp_path, monkeypatch, capsys):
    given = {}
    monkeypatch.setattr(torch, "set_num_threads", lambda number: given.update(threads=number))
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode: given.update(deterministic=mode))

    def train_nothing(argv):
        given.update(train.parse_args(argv, None))
        save_file(given["output"] / "best.pth", pretrained_run())

    monkeypatch.setattr(train, "main", train_nothing)
    pretrained_head.main(["--images", "i", "--labels", "l.csv", "--output", str(tmp_path)])
    assert (given["threads"], given["deterministic"]) == (1, True)
    assert given["backbone"] == pretrained_run()["settings"]["backbone"]
    assert (given["freeze_trunk"], given["split_column"]) == (True, "aitlas_split")
    assert (tmp_path / HEAD.name).read_bytes() == HEAD.read_bytes()
    assert hashlib.sha256(HEAD.read_bytes()).hexdigest() in capsys.readouterr().out
