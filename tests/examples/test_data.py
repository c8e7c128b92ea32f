"""The splits that train.py makes."""

from archives import write_archive
from data import load_splits
from run_settings import new_settings


def test_a_stratified_split_of_groups(tmp_path):
    archive = write_archive(tmp_path, num_images=60, image_size=16, seed=5)
    header, *rows = (archive / "labels.csv").read_text().splitlines()
    lines = [f"tile,{header}"] + [f"{number // 4},{row}" for number, row in enumerate(rows)]
    (tmp_path / "tiles.csv").write_text("\n".join(lines))
    given = {"images": archive / "images", "labels": tmp_path / "tiles.csv", "id_column": "image", "image_size": 16}
    settings = new_settings({**given, "dataset": "csv", "ignore_columns": ["part"], "group_column": "tile"})
    splits, classes = load_splits(settings)
    assert len(classes) == 12
    tiles = {name: {int(path.stem) // 4 for path in split.paths} for name, split in splits.items()}
    assert sorted(tile for found in tiles.values() for tile in found) == list(range(15))
    assert len(tiles["train"]) > len(tiles["val"]) > 0
