import shutil
import sys
from types import ModuleType, SimpleNamespace

import models
import pytest
import torch
import train
from archives import write_archive
from models import load_run
from torch.utils.data import DataLoader

from pml_macl.datasets import MultiLabelImageDataset
from pml_macl.testers import MultiLabelEmbeddingSpaceTester


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("archive"), num_images=40, image_size=32, seed=5)


def train_run(archive, output, *options):
    """A run of one epoch without figures."""
    argv = ["--dataset", "csv", "--images", archive / "images", "--labels", archive / "labels.csv", "--output", output]
    argv += ["--split-column", "part", "--image-size", "32", "--batch-size", "8", "--epochs", "1", "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_curves", "draw_labels", "draw_grid"):
            patch.setattr(train, name, lambda *args: None)
        return train.main([str(word) for word in [*argv, *options]])


@pytest.fixture(scope="module")
def finished(archive, tmp_path_factory):
    output = tmp_path_factory.mktemp("finished")
    train_run(archive, output)
    return output


@pytest.mark.parametrize("backbone", models.BACKBONES)
@pytest.mark.parametrize("frozen", [False, True], ids=["trained trunk", "frozen trunk"])
def test_a_loaded_model_has_the_embeddings_of_its_run(archive, tmp_path, monkeypatch, backbone, frozen):
    embeddings = []
    get_all_embeddings = MultiLabelEmbeddingSpaceTester.get_all_embeddings

    def remember(*args, **kwargs):
        embeddings.append(get_all_embeddings(*args, **kwargs)[0])
        return get_all_embeddings(*args, **kwargs)

    monkeypatch.setattr(MultiLabelEmbeddingSpaceTester, "get_all_embeddings", remember)
    result = train_run(archive, tmp_path / "run", "--backbone", backbone, *["--freeze-trunk"] * frozen)
    monkeypatch.undo()
    run = shutil.copytree(tmp_path / "run", tmp_path / "elsewhere")
    for path in [*(tmp_path / "run").glob("*.pth"), *tmp_path.glob("feature-cache/*")]:
        path.unlink()
    for path in run.iterdir():
        if path.is_file() and path.name != "best.pth":
            path.unlink()

    torch.manual_seed(7)
    model, transform, classes = load_run(run)
    test_set = MultiLabelImageDataset(
        archive / "images", archive / "labels.csv", split="test", split_column="part", transform=transform
    )
    assert not model.training
    assert classes == result["classes"] == test_set.classes
    with torch.no_grad():
        found = torch.cat([model(images) for images, _ in DataLoader(test_set, 3)])
    assert embeddings[-1].std(dim=0).mean() > 1e-3
    torch.testing.assert_close(torch.nn.functional.normalize(found), embeddings[-1], atol=1e-6, rtol=0)


@pytest.fixture
def timm_stand_in(monkeypatch):
    """A module with the functions of timm that models.py calls; tests/ecosystem/test_timm.py uses timm itself."""
    timm = ModuleType("timm")
    config = SimpleNamespace(input_size=(3, 48, 48), fixed_input_size=False, classifier="fc")
    timm.get_pretrained_cfg = lambda name, allow_unregistered: config
    timm.data = SimpleNamespace(resolve_model_data_config=lambda network: {"mean": (0.2,) * 3, "std": (0.5,) * 3})

    def create_model(name, num_classes, pretrained):
        assert (name, num_classes, pretrained) == ("tiny", 0, False)
        network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
        network.head_hidden_size = 12
        return network

    timm.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", timm)


def test_a_backbone_of_timm(archive, tmp_path, timm_stand_in):
    train_run(archive, tmp_path / "run", "--backbone", "timm/tiny", "--freeze-trunk")
    model, _, _ = load_run(tmp_path / "run")
    features = model.trunk(torch.full((1, 3, 48, 48), 0.7))
    torch.testing.assert_close(features, torch.ones(1, 12))  # (0.7 - 0.2) / 0.5
    assert models.default_image_size("timm/tiny") == 48


def test_a_run_with_a_backbone_of_timm_needs_timm(archive, tmp_path, timm_stand_in, monkeypatch):
    train_run(archive, tmp_path / "run", "--backbone", "timm/tiny", "--freeze-trunk")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="--backbone timm/NAME needs timm; install it with: pip install"):
        load_run(tmp_path / "run")


def test_the_normalisation_of_the_run_is_used(finished, tmp_path):
    content = torch.load(finished / "best.pth", weights_only=True)
    torch.save({**content, "mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]}, tmp_path / "best.pth")
    model, _, _ = load_run(tmp_path)
    torch.testing.assert_close(model.trunk[0](torch.ones(1, 3, 1, 1)).flatten(), torch.tensor([0.9, 0.4, 0.7 / 3]))


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no best\.pth; give the --output folder of a run of train\.py"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged or was not written by these examples"),
        (b"not a PyTorch file", "is damaged or was not written by these examples"),
        ({"state_dict": {}}, "was not written by this version of the examples: it lacks classes, epoch, mean"),
        ([1, 2], "was not written by this version of the examples"),
    ],
    ids=["empty", "text", "dictionary of another program", "list"],
)
def test_a_foreign_file(tmp_path, content, message):
    path = tmp_path / "best.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=rf"best\.pth {message}"):
        load_run(tmp_path)


@pytest.mark.parametrize("end", [0, 100], ids=["truncated", "damaged in the middle"])
def test_a_damaged_file(finished, tmp_path, end):
    content = bytearray((finished / "best.pth").read_bytes())
    middle = len(content) // 2
    content[middle : middle + end if end else None] = bytes(end)
    (tmp_path / "best.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"best\.pth is damaged"):
        load_run(tmp_path)


def test_weights_that_do_not_fit_their_settings(finished, tmp_path):
    content = torch.load(finished / "best.pth", weights_only=True)
    content["settings"]["embedding_size"] += 1
    torch.save(content, tmp_path / "best.pth")
    with pytest.raises(ValueError, match=r"best\.pth does not fit this version of the examples: .*size mismatch"):
        load_run(tmp_path)
