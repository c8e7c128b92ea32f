import pickle
import re
import sys

import numpy as np
import pytest
import torch
from archives import write_png_of_16_bits
from PIL import Image
from torch.utils.data import DataLoader

from pml_macl.datasets import MultiLabelImageDataset

TABLE = "image,part,ship,trees,water\na,train,1,0,1\nb,test,0,1,0\nsub/c,train,1,1,0\n"
LABELS = [[True, False, True], [False, True, False], [True, True, False]]
FORMS = {
    "crlf": TABLE.replace("\n", "\r\n"),
    "cr": TABLE.replace("\n", "\r"),
    "tab": TABLE.replace(",", "\t"),
    "tab-crlf-bom": TABLE.replace(",", "\t").replace("\n", "\r\n").encode("utf-8-sig"),
    "bom": TABLE.encode("utf-8-sig"),
    "no-last-newline": TABLE.rstrip("\n"),
    "blank-lines": "\n" + TABLE.replace("\n", "\n\n"),
    "spaces": TABLE.replace(",", " , "),
    "floats": TABLE.replace(",1", ",1.0").replace(",0", ",0.0"),
    "quotes": TABLE.replace("a,train", '"a","train"').replace("ship", '"ship"'),
    "unnamed-id-column": TABLE.replace("image,", ","),
    "true-and-false": TABLE.replace(",1,0,1", ",True,FALSE,true").replace(",0,1,0", ",false,TRUE,False"),
    "extensions": TABLE.replace("a,t", "a.png,t").replace("b,t", "b.jpg,t").replace("sub/c", "sub/c.tif"),
    "other-case-and-separators": TABLE.replace("a,t", "a.PNG,t")
    .replace("b,t", "./b.JPG,t")
    .replace("sub/c", r"sub\c.Tif"),
}


def save_image(path, colour="white", size=(6, 4), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    save_image(folder / "a.png", (255, 0, 51))
    save_image(folder / "b.jpg", "green")
    save_image(folder / "sub" / "c.TIF", "blue")
    return folder


@pytest.fixture
def build(images, tmp_path):
    """Returns a function that writes a table (text or bytes) and builds its data set."""

    def build_dataset(table=TABLE, split_column="part", **options):
        path = tmp_path / "labels.csv"
        path.write_bytes(table if isinstance(table, bytes) else table.encode())
        return MultiLabelImageDataset(images, path, split_column=split_column, **options)

    return build_dataset


def test_items_and_attributes(build, images):
    dataset = build()
    image, labels = dataset[0]
    assert image.shape == (3, 4, 6)
    assert image.dtype is torch.float32
    assert image.is_contiguous()
    assert image[:, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.2])
    assert labels.dtype is torch.bool
    assert labels.tolist() == [True, False, True]
    assert len(dataset) == 3
    assert dataset.classes == ["ship", "trees", "water"]
    assert dataset.labels.tolist() == LABELS
    assert dataset.labels.dtype is torch.bool
    assert dataset.ids == ["a", "b", "sub/c"]
    assert dataset.paths == [images / "a.png", images / "b.jpg", images / "sub" / "c.TIF"]
    with pytest.raises(IndexError):
        dataset[3]


def test_a_split(build):
    dataset = build(split="train")
    assert dataset.ids == ["a", "sub/c"]
    assert dataset.labels.tolist() == [LABELS[0], LABELS[2]]
    assert dataset[1][1].tolist() == LABELS[2]


# What DataFrame.to_csv() writes: the row index comes first and has no name.
PANDAS_TABLE = ",image,part,ship,trees,water\n0,a,train,1,0,1\n1,b,test,0,1,0\n2,sub/c,train,1,1,0\n"


@pytest.mark.parametrize("options", [{}, {"ignore_columns": ["image"]}])
def test_the_row_index_of_pandas_is_not_taken_for_ids(build, options):
    message = (
        r"the first column of .*labels.csv has no name and counts the rows from 0, as the row index of pandas does; "
        r"set id_column to .* one of \['image', 'part', 'ship', 'trees', 'water'\], or write the table with "
        r"to_csv\(path, index=False\); if the images are really named 0, 1, ..., set id_column=''$"
    )
    with pytest.raises(ValueError, match=message):
        build(PANDAS_TABLE, **options)


@pytest.mark.parametrize("table", [PANDAS_TABLE, PANDAS_TABLE.replace("\n2,", "\n17,")], ids=["all-rows", "some-rows"])
def test_an_unnamed_first_column_is_ignored_if_another_column_holds_the_ids(build, table):
    dataset = build(table, id_column="image")
    assert dataset.ids == ["a", "b", "sub/c"]
    assert dataset.classes == ["ship", "trees", "water"]
    assert dataset.labels.tolist() == LABELS
    assert build(table, id_column="image", split="test").ids == ["b"]


def test_an_id_column_in_the_middle(build):
    dataset = build("ship,part,image,water\n1,train,a,0\n0,test,b,1\n", id_column="image")
    assert dataset.ids == ["a", "b"]
    assert dataset.classes == ["ship", "water"]
    assert dataset.labels.tolist() == [[True, False], [False, True]]


def test_images_that_are_named_by_numbers(build, images):
    for number in range(2):
        save_image(images / f"{number}.png")
    unnamed, named = (f"{name},part,ship\n0,train,1\n1,test,0\n" for name in ("", "id"))
    assert build(unnamed, id_column="").ids == build(named).ids == ["0", "1"]
    with pytest.raises(ValueError, match="counts the rows from 0"):
        build(unnamed)
    save_image(images / "2.png")
    assert build(unnamed.replace("\n0,", "\n2,")).ids == ["2", "1"]  # not 0, 1, ...: not taken for a row index


def test_images_of_other_splits_may_be_missing(build, images):
    (images / "b.jpg").unlink()
    assert len(build(split="train")) == 2


def test_ignored_columns(build):
    assert build(ignore_columns=["trees", "part"]).classes == ["ship", "water"]


def test_transform_gets_an_rgb_image(build):
    dataset = build(transform=lambda image: (image.mode, image.size))
    assert dataset[1][0] == ("RGB", (6, 4))


@pytest.mark.parametrize("table", FORMS.values(), ids=FORMS)
def test_forms_of_one_table(build, table):
    dataset = build(table)
    assert dataset.classes == ["ship", "trees", "water"]
    assert dataset.labels.tolist() == LABELS
    assert [path.stem for path in dataset.paths] == ["a", "b", "c"]
    assert build(table, split="train").labels.tolist() == [LABELS[0], LABELS[2]]


def test_a_comma_in_a_tab_separated_name(build):
    assert build("id\tship, large\twater\na\t1\t0\n", split_column=None).classes == ["ship, large", "water"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "labels.csv is empty"),
        ("\n\r\n \n", "labels.csv is empty"),
        ("image,part,ship\n", "a header but no rows"),
        (
            "image;part;ship\na;train;1\n",
            "has only one column, 'image;part;ship'; separate the columns with commas or tabs",
        ),
        ("image\na\n", "has only one column, 'image'"),
        ("image,part\na,train\n", "must have a label column, got only \\['image', 'part'\\]; add one column per class"),
        ("image,part,ship,\na,train,1,\n", "column 4 of 4 has no name"),
        ("image,part,ship,ship\na,train,1,0\n", "two columns 'ship'"),
        ("image,part, water,ship,water\na,train,1,1,0\n", "two columns 'water' .spaces around a name are ignored.;"),
        ("image,image,part,ship\na,1,train,0\n", "two columns 'image'"),
        ("image,split,ship\na,train,1\n", "no column 'part' besides the image ids"),
        ("part,ship,water\na,1,1\n", "no column 'part' besides the image ids"),
        (TABLE + "d,train,1,0\n", r"line 5: a row must have one cell per column \(5\), got 4 cells"),
        (TABLE + "d,train,1,0,1,1\n", r"line 5: a row must have one cell per column \(5\), got 6 cells"),
        (TABLE + "a,train,1,0,1\n", "line 5: id 'a' is already in line 2"),
        (TABLE + ",train,1,0,1\n", "line 5: the image id is empty; correct that row"),
        (TABLE + "d,train,2,0,1\n", "line 5, column 'ship': a label must be 0, 1, True or False, got '2'"),
        (TABLE + "d,train,1,,1\n", "line 5, column 'trees': a label must be known, got an empty cell; write 1"),
        (TABLE + "d,train,1,0,nan\n", "line 5, column 'water': a label must be known, got 'nan'; write 1"),
        (
            TABLE + "\n\nd,train,1,-1,0\n",
            "line 7, column 'trees': a label must be 0 or 1, got '-1'; if -1 means .* by 0",
        ),
        (TABLE + "d,train,0.5,0,0\n", "column 'ship': a label must be 0, 1, True or False, got '0.5'"),
        (TABLE + "d,train,yes,0,0\n", "got 'yes'; name the column in ignore_columns if it is not .* in id_column if"),
        (TABLE + "d,train,=1+1,0,0\n", "got '=1\\+1'"),
        (TABLE + "a.png,train,1,0,1\n", "ids 'a' and 'a.png' both mean .*a.png; keep one"),
        (TABLE.replace("a,", "/etc/passwd,"), "id '/etc/passwd' does not name a file in the image folder"),
        (TABLE.replace("a,", "../a,"), "id '../a' does not name a file in the image folder"),
        (TABLE.replace("a,", "sub/../../a,"), "relative and without '..'"),
        (TABLE.replace("a,", r"sub\..\..\a,"), "relative and without '..'"),
        (TABLE.replace("a,", r"C:\a.png,"), "relative and without '..'"),
        (TABLE.replace("a,", r"\\host\a.png,"), "relative and without '..'"),
        (TABLE.replace("a,", "./,"), "does not name a file"),
        (TABLE.replace("train", '"train', 1), "not a comma- or tab-separated UTF-8 text"),
        (TABLE.encode("utf-16"), "not a comma- or tab-separated UTF-8 text"),
        (TABLE.replace("a", "\xe4").encode("latin-1"), "not a comma- or tab-separated UTF-8 text"),
        (TABLE + "x" * 200_000, "not a comma- or tab-separated UTF-8 text .*field limit"),
    ],
)
def test_hostile_tables(build, table, message):
    with pytest.raises(ValueError, match=message):
        build(table)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            TABLE + "d,test,1,0,0\ne/f,test,1,0,0\n",
            r"2 of 5 label rows have no image, .*\['d', 'e/f'\]. Add the images to .*images ",
        ),
        (TABLE.replace("b,", "b.png,"), r"1 of 3 .*\['b.png'\]. Add the images to .* \(known extensions: .jpg, "),
        (TABLE.replace("b,", "a.png/b,"), r"\['a.png/b'\]"),
        (TABLE.replace("b,", "x" * 5000 + "/b,"), "1 of 3 label rows"),
        (TABLE.replace("b,", "~/b,"), "1 of 3 label rows"),
    ],
)
def test_rows_without_image(build, table, message):
    with pytest.raises(FileNotFoundError, match=message):
        build(table)


def test_a_zero_byte_in_an_id(build):
    # Python 3.10 rejects the table; later versions read it and find no such image.
    with pytest.raises((ValueError, FileNotFoundError), match=r"labels.csv|label rows"):
        build(TABLE.replace("b,", "b\0/b,"))


def test_ambiguous_id(build, images):
    save_image(images / "b.png")
    with pytest.raises(ValueError, match=r"id 'b' fits several images of .*\['b.jpg', 'b.png'\]; write the exact file"):
        build()
    assert build(TABLE.replace("b,", "b.jpg,")).paths[1] == images / "b.jpg"


def test_a_file_with_exactly_the_name_of_the_id_is_preferred(build, images):
    save_image(images / "b.jpg.png")
    save_image(images / "b.v2.png")
    dataset = build(TABLE.replace("b,", "b.jpg,") + "b.v2,test,0,0,0\n")
    assert [path.name for path in dataset.paths] == ["a.png", "b.jpg", "c.TIF", "b.v2.png"]


def test_other_files_in_the_folder_do_not_matter(build, images):
    (images / "a.txt").write_text("notes")
    (images / "b").mkdir()
    assert len(build()) == 3


def test_missing_folder_and_table(tmp_path, images):
    with pytest.raises(FileNotFoundError, match=r"no label table at .*nothing.csv; correct the path"):
        MultiLabelImageDataset(images, tmp_path / "nothing.csv")
    with pytest.raises(FileNotFoundError, match="no label table at"):
        MultiLabelImageDataset(images, tmp_path)
    (tmp_path / "labels.csv").write_text("id,ship\na,1\n")
    for folder in (tmp_path / "nowhere", images / "a.png"):
        with pytest.raises(FileNotFoundError, match="no image folder at"):
            MultiLabelImageDataset(folder, str(tmp_path / "labels.csv"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split": "val"}, ValueError, "no split 'val' in its column 'part'; it has test, train"),
        ({"split": "train", "split_column": None}, ValueError, "split 'train' was given without split_column"),
        (
            {"split_column": "fold"},
            ValueError,
            r"no column 'fold' besides the image ids; the other columns are \['part', 'ship'",
        ),
        ({"ignore_columns": ["scene"]}, ValueError, "no column 'scene'"),
        ({"ignore_columns": ["image"]}, ValueError, "no column 'image' besides the image ids"),
        (
            {"ignore_columns": ["ship", "trees", "water"]},
            ValueError,
            "must have a label column, got only .*; add one column per class, or name fewer",
        ),
        ({"ignore_columns": "ship"}, TypeError, "ignore_columns must be a collection of column names, got 'ship'"),
        ({"ignore_columns": [2]}, TypeError, r"ignore_columns must be a collection of column names, got \[2\]"),
        ({"ignore_columns": {"scene"}}, ValueError, "no column 'scene'"),
        ({"ignore_columns": None}, TypeError, "ignore_columns must be a collection of column names, got None"),
        ({"split": 1}, TypeError, "split must be a string or None, got 1"),
        ({"split_column": 1}, TypeError, "split_column must be a string or None, got 1"),
        ({"id_column": 0}, TypeError, "id_column must be a string or None, got 0"),
        (
            {"id_column": "img"},
            ValueError,
            r"id_column must name a column .* got 'img'; its columns are \['image', 'part'",
        ),
        ({"id_column": "part"}, ValueError, r"no column 'part' besides the image ids; .* are \['image', 'ship'"),
        ({"transform": 3}, TypeError, "transform must be callable or None, got 3"),
    ],
)
def test_bad_arguments(build, options, error, message):
    with pytest.raises(error, match=message):
        build(**options)


@pytest.mark.parametrize("name", ["images", "labels_file"])
def test_paths_must_be_paths(tmp_path, name):
    with pytest.raises(TypeError, match=f"{name} must be a path, got None"):
        MultiLabelImageDataset(**{"images": tmp_path, "labels_file": tmp_path, name: None})


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.fixture
def noisy_images(images):
    """Images of noise, whose files are long enough to be truncated."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for path in (images / "a.png", images / "b.jpg", images / "sub" / "c.TIF"):
        Image.fromarray(noise).save(path)
    return images


@pytest.mark.parametrize("number", [0, 1, 2])
def test_truncated_image(build, noisy_images, number):
    dataset = build()
    dataset.check_images()
    truncate(dataset.paths[number])
    with pytest.raises(ValueError, match=rf"cannot decode image {dataset.paths[number]} \(.*\); replace or re-encode"):
        dataset[number]
    with pytest.raises(ValueError, match=rf"1 of 3 images cannot be read, the first ones: .*{dataset.paths[number]}"):
        dataset.check_images()


def test_many_broken_images(build, images):
    dataset = build()
    dataset.paths[0].unlink()
    dataset.paths[1].write_text("no image")
    dataset.paths[2].write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        dataset[0]
    for number in (1, 2):
        with pytest.raises(ValueError, match="cannot decode image"):
            dataset[number]
    with pytest.raises(ValueError, match=r"3 of 3 images cannot be read, .*a.png.*b.jpg.*c.TIF"):
        dataset.check_images()


def test_only_the_named_formats_are_decoded(build, images):
    """Pillow runs a program to decode PostScript; a renamed file must not start it."""
    Image.new("RGB", (4, 4)).save(images / "a.eps")
    (images / "a.eps").rename(images / "a.png")
    with pytest.raises(ValueError, match="cannot decode image"):
        build()[0]


@pytest.mark.parametrize(("mode", "colour"), [("L", 255), ("P", 0), ("RGBA", "white"), ("1", 1), ("CMYK", 0)])
def test_modes_become_rgb(build, images, mode, colour):
    (images / "a.png").unlink()
    save_image(images / "a.tif", colour, mode=mode)
    image, _ = build()[0]
    assert image.shape == (3, 4, 6)


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_images_of_more_than_8_bits_are_refused(build, images, mode):
    (images / "a.png").unlink()
    save_image(images / "a.tif", 1000, mode=mode)
    dataset = build()
    with pytest.raises(ValueError, match=rf"image .*a.tif must have 8 bits per channel, got mode {mode}; convert it"):
        dataset[0]
    with pytest.raises(ValueError, match=rf"1 of 3 images cannot be read, .*a.tif must have 8 bits .* mode {mode}"):
        dataset.check_images()


def test_colour_images_of_16_bits_are_refused(build, images):
    """Pillow would drop the low byte of each channel."""
    write_png_of_16_bits(images / "a.png", np.full((4, 6, 3), 2991))
    assert np.asarray(Image.open(images / "a.png")).max() == 2991 >> 8
    with pytest.raises(ValueError, match=r"a.png must have 8 bits per channel, got 16 bits in mode RGB; convert it"):
        build()[0]


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_the_line_in_the_message_converts_an_image_to_8_bits(build, images, dtype):
    (images / "a.png").unlink()
    values = np.array([[0, 1000, 2000, 4000]] * 2)
    Image.fromarray(values.astype(dtype)).save(images / "a.tif")
    dataset = build()
    with pytest.raises(ValueError, match="must have 8 bits") as error:
        dataset[0]
    (line,) = re.findall("convert it with (.*), where low and high are the range of the values", str(error.value))
    names = {"Image": Image, "np": np, "path": images / "a.tif", "new_path": images / "a.png", "low": 0, "high": 2000}
    exec(line, names)
    (images / "a.tif").unlink()
    image, _ = build()[0]
    assert (image * 255).round().int().tolist() == [[[0, 127, 255, 255]] * 2] * 3


def test_pickle_and_worker_processes(build):
    dataset = pickle.loads(pickle.dumps(build()))
    images, labels = next(iter(DataLoader(dataset, batch_size=3, num_workers=2)))
    assert images.shape == (3, 3, 4, 6)
    assert labels.tolist() == LABELS


def test_a_changed_item_does_not_change_the_set(build):
    dataset = build()
    dataset[0][1].zero_()
    assert dataset.labels.tolist() == LABELS


def test_the_package_needs_pillow_only_for_decoding(build, monkeypatch):
    dataset = build()
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"needs Pillow; install it with: pip install pillow$"):
        dataset[0]


@pytest.mark.parametrize(("name", "sizes"), [("ucm_multilabel", (1285, 395, 420)), ("ml_aid", (1917, 483, 600))])
def test_real_tables(shared_data, name, sizes):
    folder = shared_data / name
    columns = {"split_column": "aitlas_split", "ignore_columns": ["scene"]}
    for split, size in zip(("train", "val", "test"), sizes, strict=True):
        dataset = MultiLabelImageDataset(folder / "images", folder / "labels.csv", split, **columns)
        assert dataset.labels.shape == (len(dataset), 17) == (size, 17)
        assert dataset[0][0].shape == (3, 128, 128)
    everything = MultiLabelImageDataset(folder / "images", folder / "labels.csv", **columns)
    features = np.load(folder / "features_efficientnet_lite0.npz")
    assert np.array_equal(everything.labels.numpy(), features["Y"].astype(bool))


def test_the_official_table_of_uc_merced_agrees(shared_data):
    folder = shared_data / "ucm_multilabel"
    ours = MultiLabelImageDataset(
        folder / "images", folder / "labels.csv", split_column="aitlas_split", ignore_columns=["scene"]
    )
    official = MultiLabelImageDataset(folder / "images", folder / "LandUse_Multilabeled.txt")
    assert official.classes == ours.classes
    assert dict(zip(official.paths, official.labels.tolist(), strict=True)) == dict(
        zip(ours.paths, ours.labels.tolist(), strict=True)
    )
    assert len(official) == 2100
