"""train.py with backbones from timm. Its pretrained weights are not needed, so no test uses the network."""

import pytest
import torch
import train
from archives import assert_same_state, write_archive
from models import load_run, make_backbone

timm = pytest.importorskip("timm", reason='needs timm: pip install -e ".[timm]"')
NAMES = ("test_resnet", "test_vit", "mobilenetv3_small_050")  # a CNN, a transformer, layers after the pooling


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("archive"), num_images=40, image_size=32, seed=5)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    for name in ("draw_curves", "draw_labels", "draw_grid"):
        monkeypatch.setattr(train, name, lambda *args: None)


def arguments(archive, output, name, *more):
    argv = ["--dataset", "csv", "--images", archive / "images", "--labels", archive / "labels.csv", "--output", output]
    argv += ["--split-column", "part", "--batch-size", "8", "--device", "cpu", "--backbone", f"timm/{name}", *more]
    return [str(word) for word in argv]


def save_weights(path, state):
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def images(size):
    return torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("file", ["weights.safetensors", "weights.pth"])
def test_features_equal_those_of_timm(tmp_path, name, file):
    """The file has a classifier of 7 classes, which the backbone leaves out. timm's own transform normalises."""
    whole = timm.create_model(name, num_classes=7).eval()
    weights = save_weights(tmp_path / file, whole.state_dict())
    size = whole.pretrained_cfg["input_size"][1]
    trunk, num_features = make_backbone(f"timm/{name}", weights=weights, image_size=size)
    data = timm.data.resolve_model_data_config(whole)
    normalised = timm.data.create_transform(**data).transforms[-1](images(size))
    with torch.no_grad():
        features = trunk.eval()(images(size))
        expected = whole.forward_head(whole.forward_features(normalised), pre_logits=True)
    assert features.shape == (4, num_features)
    torch.testing.assert_close(features, expected)


def test_a_model_with_one_image_size_is_made_for_the_size_of_the_run(tmp_path):
    name = "vit_tiny_patch16_224"
    weights = save_weights(tmp_path / "weights.pth", timm.create_model(name).state_dict())
    trunk, num_features = make_backbone(f"timm/{name}", weights=weights, image_size=32)
    assert trunk(images(32)).shape == (4, num_features)
    with pytest.raises(AssertionError, match="doesn't match model"):
        trunk(images(224))


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_of_a_run_needs_no_weights(archive, tmp_path, name):
    """The trunk is frozen, so its features are still those of the weights."""
    whole = timm.create_model(name)
    weights = save_weights(tmp_path / "weights.pth", whole.state_dict())
    expected = make_backbone(f"timm/{name}", weights=weights)[0].eval()
    options = ("--weights", weights, "--epochs", "1", "--freeze-trunk", "--hidden-size", "8")
    result = train.main(arguments(archive, tmp_path / "run", name, *options))
    weights.unlink()
    model, transform, classes = load_run(tmp_path / "run")
    size = whole.pretrained_cfg["input_size"][1]
    assert classes == result["classes"]
    assert transform(torch.zeros(3, 50, 50)).shape == (3, size, size)
    with torch.no_grad():
        assert torch.equal(model.trunk(images(size)), expected(images(size)))


def test_a_run_without_its_weights_resumes_bit_for_bit(archive, tmp_path):
    weights = save_weights(tmp_path / "weights.pth", timm.create_model("test_resnet").state_dict())
    options = ("--weights", weights, "--image-size", "32", "--hidden-size", "8", "--epochs")
    train.main(arguments(archive, tmp_path / "whole", "test_resnet", *options, 2))
    train.main(arguments(archive, tmp_path / "parts", "test_resnet", *options, 1))
    weights.unlink()
    train.main(["--output", str(tmp_path / "parts"), "--resume", "--epochs", "2"])
    for file in ("checkpoint.pth", "best.pth"):
        assert_same_state(tmp_path / "whole" / file, tmp_path / "parts" / file)


@pytest.mark.parametrize("name", NAMES)
def test_other_channels_than_rgb(tmp_path, name):
    """timm repeats the weights of three channels. Weights for the channels of the run stay as they are."""
    for source in (3, 12):
        whole = timm.create_model(name, in_chans=source).eval()
        weights = save_weights(tmp_path / f"{source}.pth", whole.state_dict())
        size = whole.pretrained_cfg["input_size"][1]
        trunk, num_features = make_backbone(f"timm/{name}", weights=weights, image_size=size, channels=12)
        twelve = torch.rand(4, 12, size, size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            features = trunk[1].eval()(twelve)
            # Twelve channels of repeated weights, scaled by 3 / 12, see the mean of every third channel.
            seen = torch.stack([twelve[:, channel::3].mean(dim=1) for channel in range(3)], dim=1)
            expected = whole.forward_head(whole.forward_features(seen if source == 3 else twelve), pre_logits=True)
        assert features.shape == (4, num_features)
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_weights_for_other_channels_do_not_fit(tmp_path):
    weights = save_weights(tmp_path / "weights.pth", timm.create_model("resnet18", in_chans=4).state_dict())
    with pytest.raises(ValueError, match=r"--weights .*weights\.pth does not fit --backbone timm/resnet18: .* got 4"):
        make_backbone("timm/resnet18", weights=weights, channels=12)


UNREADABLE = "must be a safetensors file or a state_dict that torch saved: "


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("none.pth", None, "there is no such file"),
        ("empty.pth", b"", UNREADABLE),
        ("text.pth", b"no weights", UNREADABLE),
        ("text.safetensors", b"no weights at all", UNREADABLE),
        ("list.pth", [1, 2], UNREADABLE),
        ("code.pth", torch.nn.Linear(2, 2), UNREADABLE),
        ("foreign.pth", {"a": torch.ones(1)}, 'does not fit --backbone timm/resnet18: .*Missing key.*"conv1.weight"'),
        # Without its unexpected layers, the larger network would fit.
        ("larger.pth", "resnet34", 'does not fit --backbone timm/resnet18: .*Unexpected key.*"layer1.2.conv1.weight"'),
    ],
)
def test_a_file_of_weights_that_does_not_fit(archive, tmp_path, file, content, message):
    path = tmp_path / file
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(timm.create_model(content).state_dict() if isinstance(content, str) else content, path)
    argv = arguments(archive, tmp_path / "run", "resnet18", "--weights", path)
    with pytest.raises(SystemExit, match=rf"error: --weights .*{file}:? {message}"):
        train.main(argv)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["resnet18x", "resnet18.nowhere", "hf-hub:someone/model"])
def test_a_model_that_timm_does_not_know(archive, tmp_path, name):
    message = f"error: --backbone timm/{name}: timm .* has no such model; try "
    with pytest.raises(SystemExit, match=message):
        train.main(arguments(archive, tmp_path / "run", name))
