"""Images with other channels than RGB in train.py, evaluate.py and search.py."""

import re
import shutil

import evaluate
import numpy as np
import pytest
import search
import torch
import train
from archives import assert_same_state, write_png_of_16_bits
from channel_files import channel_statistics, preview, read_channels
from models import load_run, make_backbone
from PIL import Image

CHANNELS, LABELS = 12, ["forest", "water", "sand"]


def write_bands(folder, num_images=40):
    """Write 16-bit .npy files with one band per label, which is brighter if the image has the label."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    labels = rng.random((num_images, len(LABELS))) < 0.5
    lines = ["patch,part," + ",".join(LABELS)]
    for row, label_set in enumerate(labels):
        bands = rng.integers(1000, 3000, (CHANNELS, 18, 16), dtype=np.uint16)
        bands[: len(LABELS)] += 9000 * label_set[:, None, None].astype(np.uint16)
        np.save(folder / "images" / f"{row}.npy", bands if row % 2 else bands.transpose(1, 2, 0))  # first or last
        lines.append(
            f"{row}.npy,{('train', 'train', 'val', 'test')[row % 4]},{','.join(map(str, label_set.astype(int)))}"
        )
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def data(folder):
    return ["--images", str(folder / "images"), "--labels", str(folder / "labels.csv")]


def arguments(folder, output, *more):
    options = "--split-column part --image-size 16 --batch-size 10 --hidden-size 8 --embedding-size 8 --device cpu"
    return ["--dataset", "csv", *data(folder), *options.split(), "--output", str(output), *more]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_bands(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def run(archive, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    return output, train.main(arguments(archive, output, "--channels", str(CHANNELS), "--epochs", "2"))


def test_each_channel_is_normalised_by_the_training_images(archive, run):
    output, result = run
    images = [np.load(archive / "images" / f"{row}.npy") for row in range(40) if row % 4 < 2]
    pixels = np.concatenate([image.transpose(2, 0, 1) if len(image) == 18 else image for image in images], axis=1)
    model, transform, classes = load_run(output)
    assert classes == LABELS
    assert result["settings"]["channels"] == CHANNELS
    mean, std = (value.flatten().double().numpy() for value in (model.trunk[0].mean, model.trunk[0].std))
    assert mean == pytest.approx(pixels.mean((1, 2)), rel=1e-6)
    assert std == pytest.approx(pixels.std((1, 2)), rel=1e-6)
    image = transform(read_channels(archive / "images" / "0.npy", CHANNELS))
    assert image.shape == (CHANNELS, 16, 16)
    assert 900 < image.min() < image.max() < 12_100  # in the units of the file
    assert model(image[None]).shape == (1, 8)


def test_a_run_resumes_bit_for_bit(archive, run, monkeypatch):
    output, _ = run
    parts = output.parent / "parts"
    for name in ("draw_curves", "draw_labels", "draw_grid"):
        monkeypatch.setattr(train, name, lambda *args: None)
    train.main(arguments(archive, parts, "--channels", str(CHANNELS), "--epochs", "1"))
    train.main(["--output", str(parts), "--resume", "--epochs", "2"])
    for name in ("checkpoint.pth", "best.pth"):
        assert_same_state(output / name, parts / name)


def test_evaluate(archive, run, tmp_path):
    output, result = run
    found = evaluate.main(["--run", str(output), "--device", "cpu", "--figures", str(tmp_path)])["metrics"]
    assert found["ndcg"] == pytest.approx(result["best"]["ndcg"], abs=1e-6)
    assert (tmp_path / "retrieval_grid.png").stat().st_size > 1000
    words = ["--run", str(output), *data(archive), "--ignore-columns", "part", "--device", "cpu"]
    assert evaluate.main(words)["num_queries"] == 40


def test_search(archive, run, tmp_path, capsys):
    """An image finds itself in an index without labels, and the page shows its first three channels."""
    output, _ = run
    images, index = archive / "images", tmp_path / "index"
    search.main(["index", "--run", str(output), *data(archive), "--ignore-columns", "part", "--index", str(index)])
    search.main(["index", "--run", str(output), "--images", str(images), "--index", str(tmp_path / "unlabelled")])
    query = shutil.copyfile(images / "7.npy", tmp_path / "query.npy")
    page = tmp_path / "page.html"
    for folder in (index, tmp_path / "unlabelled"):
        search.main(["query", "--index", str(folder), "--image", str(query), "-k", "3", "--page", str(page)])
        assert re.search(r"^ +1  0\.0000  7\.npy", capsys.readouterr().out, re.MULTILINE)
    assert page.read_text().count("data:image/png;base64,") == 4


def test_a_file_is_read_as_it_is(tmp_path):
    image = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    for name, array in {"first": image, "last": image.transpose(1, 2, 0), "big endian": image.astype(">i2")}.items():
        np.save(tmp_path / f"{name}.npy", array)
        assert torch.equal(read_channels(tmp_path / f"{name}.npy", 2), torch.from_numpy(image).float()), name
    np.save(tmp_path / "grey.npy", image[0])
    assert torch.equal(read_channels(tmp_path / "grey.npy", 1), torch.from_numpy(image[:1]).float())
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    assert np.array_equal(read_channels(tmp_path / "rgba.png", 4).permute(1, 2, 0).numpy(), pixels)


def test_errors_name_the_file(archive, tmp_path):
    for array, message in (
        (np.zeros((3, 4, 5)), r"--channels 2 needs images of 2 numbers per pixel, got shape \(3, 4, 5\) .* correct"),
        (np.zeros((2, 3, 4, 5)), r"--channels 2 needs images .* got shape \(2, 3, 4, 5\)"),
        (np.zeros((2, 3, 4), dtype=complex), "type complex128 in .*bad.npy"),
        (np.full((2, 3, 4), np.nan), r"bad\.npy must be finite, got NaN or infinity; replace missing values"),
    ):
        np.save(tmp_path / "bad.npy", array)
        with pytest.raises(ValueError, match=message):
            read_channels(tmp_path / "bad.npy", 2)
    with pytest.raises(SystemExit, match=r"error: 40 of 40 images cannot be read, .* --channels 4 needs .*0\.npy"):
        train.main(arguments(archive, tmp_path / "run", "--channels", "4"))
    with pytest.raises(ValueError, match="channels needs the backbone small-cnn or timm/NAME, got 'resnet18'"):
        make_backbone("resnet18", channels=12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--dataset synthetic --channels 4", "--channels needs --dataset csv; synthetic scenes are RGB images"),
        (
            "--dataset csv --images i --labels l --channels 12 --backbone efficientnet-lite0",
            "--channels needs --backbone small-cnn or timm/NAME; efficientnet-lite0 takes RGB images of 8 bits",
        ),
        ("--channels 0", "argument --channels: must be a whole number of at least 1, got '0'"),
    ],
)
def test_bad_combinations(options, message, capsys):
    with pytest.raises(SystemExit) as leaving:
        train.main(options.split())
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err


def test_statistics_of_images_of_two_sizes_and_of_a_constant_channel(tmp_path):
    """Each image counts the same; a channel with one value is not divided by 0."""
    small, large = np.full((2, 2, 2), 0.1, np.float32), np.full((2, 30, 30), 0.1, np.float32)
    small[0], large[0] = 1, 5
    for name, image in (("small", small), ("large", large)):
        np.save(tmp_path / f"{name}.npy", image)
    mean, std = channel_statistics([tmp_path / "small.npy", tmp_path / "large.npy"], 2)
    assert mean == pytest.approx([3, 0.1])
    assert std == pytest.approx([2, 1])


def test_preview():
    image = torch.arange(5 * 100.0).view(5, 10, 10)
    picture = preview(image)
    assert picture.shape == (3, 10, 10)
    torch.testing.assert_close(picture[0], picture[2])  # each channel has its own range
    assert (picture.min(), picture.max()) == (0, 1)
    assert (picture == 0).float().mean().item() == pytest.approx(0.02, abs=0.01)
    assert preview(image[:2]).shape == (1, 10, 10)
    assert not preview(torch.full((1, 4, 4), 7.0)).any()


def test_what_cannot_be_read_is_an_error_with_the_path(tmp_path):
    write_png_of_16_bits(tmp_path / "colour.png", np.full((4, 6, 3), 2991))
    with pytest.raises(
        ValueError, match=r"colour\.png \(Pillow reads only 8 of the 16 bits of each channel; save it as"
    ):
        read_channels(tmp_path / "colour.png", 3)
    (tmp_path / "empty.npy").touch()
    with pytest.raises(ValueError, match=r"cannot read .*empty.npy"):
        read_channels(tmp_path / "empty.npy", 3)
