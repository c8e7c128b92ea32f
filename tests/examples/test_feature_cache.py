import os
import shutil

import feature_cache
import pytest
import torch
import train
from archives import assert_same_state, write_archive
from checkpoint import save_file


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "archive").mkdir()
    return write_archive(tmp_path / "archive", num_images=30, image_size=16, seed=5)


@pytest.fixture
def extracted(monkeypatch):
    """The splits whose features were extracted, in order."""
    names = []
    extract_features = feature_cache.extract_features

    def remember(trunk, split, name, *args):
        names.append(name)
        return extract_features(trunk, split, name, *args)

    monkeypatch.setattr(feature_cache, "extract_features", remember)
    for name in ("draw_curves", "draw_labels", "draw_grid"):
        monkeypatch.setattr(train, name, lambda *args: None)
    return names


ALL = ["train", "val", "test"]


def train_head(archive, output, *more):
    argv = ["--dataset", "csv", "--images", archive / "images", "--labels", archive / "labels.csv", "--output", output]
    argv += ["--image-size", "16", "--batch-size", "8", "--epochs", "1", "--device", "cpu", "--freeze-trunk"]
    return train.main([str(word) for word in [*argv, "--ignore-columns", "part", *more]])


def test_a_second_run_reuses_the_features(archive, tmp_path, extracted, capsys):
    first = train_head(archive, tmp_path / "runs" / "1")
    assert extracted == ALL
    assert "reusing" not in capsys.readouterr().out
    second = train_head(archive, tmp_path / "runs" / "2")
    assert extracted == ALL
    assert f"reusing features of 30 images from {tmp_path}/runs/feature-cache/" in capsys.readouterr().out
    assert repr(first["best"]) == repr(second["best"])
    assert_same_state(tmp_path / "runs" / "1" / "best.pth", tmp_path / "runs" / "2" / "best.pth")


def test_another_split_of_the_same_images_reuses_them(archive, tmp_path, extracted):
    cache = ["--feature-cache", tmp_path / "kept", "--data-seed", "1"]
    first = train_head(archive, tmp_path / "1", *cache)
    train_head(archive, tmp_path / "2", "--feature-cache", tmp_path / "kept", "--data-seed", "2")
    assert extracted == ALL
    shutil.rmtree(tmp_path / "kept")
    train_head(archive, tmp_path / "3", "--feature-cache", tmp_path / "kept", "--data-seed", "2")
    again = train_head(archive, tmp_path / "4", *cache)  # features in the order of another split
    assert extracted == 2 * ALL
    assert repr(again["best"]) == repr(first["best"])


def test_changed_images_and_options_are_not_reused(archive, tmp_path, extracted):
    cache = ("--feature-cache", tmp_path / "kept")
    image = archive / "images" / "07.png"
    train_head(archive, tmp_path / "0", *cache)
    shutil.copyfile(archive / "images" / "08.png", image)
    train_head(archive, tmp_path / "1", *cache)
    os.utime(image, (1, 1))
    train_head(archive, tmp_path / "2", *cache)
    train_head(archive, tmp_path / "3", *cache, "--image-size", "24")
    train_head(archive, tmp_path / "4", *cache, "--seed", "1")  # other weights of the untrained backbone
    train_head(archive, tmp_path / "5", *cache, "--backbone", "resnet18")
    assert extracted == 6 * ALL
    assert len(list((tmp_path / "kept").iterdir())) == 6


@pytest.mark.parametrize("content", [b"", b"half of it", None], ids=["empty", "other bytes", "half written"])
def test_damaged_entries_are_not_used(archive, tmp_path, extracted, content, capsys):
    train_head(archive, tmp_path / "1")
    (entry,) = (tmp_path / "feature-cache").iterdir()
    good = entry.read_bytes()
    entry.write_bytes(good[: len(good) // 2] if content is None else content)
    train_head(archive, tmp_path / "2")
    assert extracted == 2 * ALL
    assert "is damaged" in capsys.readouterr().err
    assert len(torch.load(entry, weights_only=True)["features"]) == 30  # the entry is written again


def test_images_that_change_during_the_extraction_are_not_kept(archive, tmp_path, extracted, monkeypatch):
    extract_features = feature_cache.extract_features

    def change_an_image(*args):
        (archive / "images" / "07.png").touch()
        return extract_features(*args)

    monkeypatch.setattr(feature_cache, "extract_features", change_an_image)
    train_head(archive, tmp_path / "1")
    assert not (tmp_path / "feature-cache").exists()


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(archive, tmp_path, extracted, capsys):
    (tmp_path / "file").write_text("")
    train_head(archive, tmp_path / "1", "--feature-cache", tmp_path / "file" / "cache")
    assert "warning: the features are not kept for later runs: " in capsys.readouterr().err


def test_synthetic_scenes_are_not_kept(tmp_path, extracted):
    options = ["--freeze-trunk", "--num-images", "40", "--epochs", "1", "--batch-size", "20", "--device", "cpu"]
    train.main([*options, "--output", str(tmp_path / "run")])
    assert extracted == ALL
    assert not (tmp_path / "feature-cache").exists()


def test_a_resumed_run_keeps_its_frozen_trunk(archive, tmp_path, extracted):
    """The file that the weights came from may have changed or gone since."""
    train_head(archive, tmp_path / "run")
    best = torch.load(tmp_path / "run" / "best.pth", weights_only=True)
    changed = {name: torch.full_like(tensor, 0.25) for name, tensor in best["models"]["trunk"].items()}
    best["models"]["trunk"] = changed
    save_file(tmp_path / "run" / "best.pth", best)
    seen = []
    run = train.run

    def remember(settings, image_splits, classes, model, *args):
        seen.append({name: tensor.clone() for name, tensor in model.trunk.state_dict().items()})
        return run(settings, image_splits, classes, model, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "run", remember)
        train.main(["--output", str(tmp_path / "run"), "--resume", "--epochs", "2"])
    assert seen[0].keys() == changed.keys()
    assert all(torch.equal(seen[0][name], changed[name]) for name in changed)
