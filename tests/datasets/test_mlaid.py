import pytest

from pml_macl.datasets import MLAID, MultiLabelImageDataset, stratified_split, write_split


def test_the_published_split(mlaid):
    everything, train, test = (MLAID(mlaid, split) for split in (None, "train", "test"))
    assert everything.ids == ["beach_0", "forest_0", "forest_1", "beach_1"]
    assert train.ids == ["beach_0", "forest_0", "forest_1"]
    assert test.ids == ["beach_1"]
    assert train.labels.equal(everything.labels[:3])
    assert test.labels.tolist() == [[True, True, True]]
    assert test.paths == [mlaid / "images_test" / "Beach" / "beach_1.jpg"]
    assert train.classes == ["sand", "sea", "trees"]


def test_a_validation_part_of_the_training_images(mlaid):
    published = MLAID(mlaid, "train")
    write_split(mlaid / "folds.csv", published.ids, stratified_split(published.labels, (0.5, 0.5)))
    train, val = (MLAID(mlaid, split, split_file=mlaid / "folds.csv") for split in ("train", "val"))
    assert sorted(train.ids + val.ids) == published.ids
    assert train.labels[:, 2].sum() == val.labels[:, 2].sum() == 1


def test_an_unknown_split(mlaid):
    with pytest.raises(ValueError, match="split must be 'train' or 'test' without a split_file, got 'val'"):
        MLAID(mlaid, "val")


def test_an_image_of_both_parts(mlaid, save):
    save(mlaid / "images_test" / "Beach" / "beach_0.jpg")
    with pytest.raises(
        ValueError, match=r"has 1 images both for train and for test, .*\['beach_0'\]; keep one of each"
    ):
        MLAID(mlaid)


def test_a_part_without_rows(mlaid):
    table = mlaid / "multilabel.csv"
    table.write_text(table.read_text().replace("beach_1,1,1,1\n", ""))
    with pytest.raises(ValueError, match="no row of split 'test'; check the image folders"):
        MLAID(mlaid, "test")


def test_a_row_without_image(mlaid):
    (mlaid / "images_tr" / "Forest" / "forest_1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 4 label rows have no image, the first ids are \['forest_1'\]"):
        MLAID(mlaid, "test")


def test_real_images_in_the_official_layout(shared_data, tmp_path):
    folder = shared_data / "ml_aid"
    options = {"split_column": "aitlas_split", "ignore_columns": ["scene"]}
    ours = MultiLabelImageDataset(folder / "images", folder / "labels.csv", **options)
    test_ids = MultiLabelImageDataset(folder / "images", folder / "labels.csv", "test", **options).ids
    rows = range(0, len(ours), 20)
    lines = [",".join(["IMAGE\\LABEL", *ours.classes])]
    for row in rows:
        path = ours.paths[row]
        part = tmp_path / ("images_test" if path.name in test_ids else "images_tr") / path.stem.split("_")[0]
        part.mkdir(parents=True, exist_ok=True)
        (part / path.name).symlink_to(path)
        lines.append(",".join([path.stem, *map(str, ours.labels[row].int().tolist())]))
    (tmp_path / "multilabel.csv").write_text("\n".join(lines))
    everything, train, test = (MLAID(tmp_path, split) for split in (None, "train", "test"))
    assert everything.labels.equal(ours.labels[::20])
    assert [path.name for path in test.paths] == [ours.ids[row] for row in rows if ours.ids[row] in test_ids]
    assert len(train) + len(test) == len(everything) == len(rows)
    assert train[0][0].shape == (3, 128, 128)
