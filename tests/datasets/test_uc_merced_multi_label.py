import pytest

from pml_macl.datasets import MultiLabelImageDataset, UCMercedMultiLabel


def write_table(root, change):
    table = root / "LandUse_Multilabeled.txt"
    table.write_bytes(change(table.read_bytes().decode()).encode())


def test_labels_and_order_of_the_table(uc_merced):
    dataset = UCMercedMultiLabel(uc_merced)
    assert dataset.ids == ["beach00", "forest00", "forest01", "beach01"]
    assert dataset.classes == ["sand", "sea", "trees"]
    assert dataset.labels.int().tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 1], [1, 1, 1]]
    assert dataset.paths[3] == uc_merced / "Images" / "beach" / "beach01.tif"


def test_ids_may_have_folder_extension_and_other_case(uc_merced):
    write_table(
        uc_merced, lambda text: text.replace("beach00", "beach\\Beach00.TIF").replace("forest00", "forest00.tif")
    )
    dataset = UCMercedMultiLabel(uc_merced)
    assert dataset.ids[:2] == ["beach\\Beach00.TIF", "forest00.tif"]
    assert [path.stem for path in dataset.paths[:2]] == ["beach00", "forest00"]


def test_images_without_row_and_of_other_splits_may_be_missing(uc_merced, save):
    save(uc_merced / "Images" / "beach" / "beach02.tif")
    (uc_merced / "splits.csv").write_text("id,split\nbeach00,train\nforest00,test\n")
    (uc_merced / "Images" / "forest" / "forest00.tif").unlink()
    assert UCMercedMultiLabel(uc_merced, "train").ids == ["beach00"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda text: "", ValueError, "LandUse_Multilabeled.txt is empty"),
        (lambda text: text.replace("\t0\t0\t1", "\t0\t0\t2"), ValueError, "line 3, column 'trees': .* got '2'"),
        (lambda text: text.replace("beach01", "beach00"), ValueError, "line 5: id 'beach00' is already in line 2"),
        (lambda text: text.replace("beach01", "beach00.tif"), ValueError, "ids 'beach00' and 'beach00.tif' both mean"),
        (lambda text: text.replace("beach01", "/beach01"), ValueError, "id '/beach01' does not name a file in"),
        (lambda text: text.replace("beach01", "../../beach01"), ValueError, "relative and without '..'"),
        (lambda text: text.replace("beach01", "C:\\beach01"), ValueError, "relative and without '..'"),
        (lambda text: text.replace("beach01", "b"), FileNotFoundError, r"1 of 4 label rows have no image.*\['b'\]\. G"),
    ],
)
def test_hostile_tables(uc_merced, change, error, message):
    write_table(uc_merced, change)
    with pytest.raises(error, match=message):
        UCMercedMultiLabel(uc_merced)


def test_a_broken_image_is_named(uc_merced):
    dataset = UCMercedMultiLabel(uc_merced)
    dataset.paths[1].write_bytes(b"II*")
    with pytest.raises(ValueError, match=r"cannot decode image .*forest00.tif"):
        dataset[1]


def test_the_official_label_file(shared_data, tmp_path):
    folder = shared_data / "ucm_multilabel"
    (tmp_path / "LandUse_Multilabeled.txt").symlink_to(folder / "LandUse_Multilabeled.txt")
    ours = MultiLabelImageDataset(
        folder / "images", folder / "labels.csv", split_column="aitlas_split", ignore_columns=["scene"]
    )
    (tmp_path / "Images").mkdir()
    (tmp_path / "Images" / "all scenes").symlink_to(folder / "images")
    dataset = UCMercedMultiLabel(tmp_path)
    assert dataset.classes == ours.classes
    assert len(dataset) == 2100
    labels = {path.stem: row for path, row in zip(ours.paths, ours.labels.tolist(), strict=True)}
    assert dataset.labels.tolist() == [labels[image_id] for image_id in dataset.ids]
    assert [path.stem for path in dataset.paths] == dataset.ids
    assert dataset[2099][0].shape == (3, 128, 128)
