import unicodedata

import pytest

from pml_macl.datasets.image_matching import by_name, by_path, list_tree, match_images


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.JPG", "b.tif", "sub/c.jpeg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_ids_that_are_paths(folder):
    ids = ["sub/c", "a.PNG", "b.jpg"]
    assert match_images(ids, by_path(folder), "") == [folder / name for name in ("sub/c.jpeg", "a.png", "b.JPG")]


def test_ids_that_are_names(folder):
    (folder / "b.tif").unlink()
    ids = ["C.tif", "elsewhere/a", "b"]
    found = match_images(ids, by_name(list_tree(folder)), "")
    assert found == [folder / name for name in ("sub/c.jpeg", "a.png", "b.JPG")]


@pytest.mark.parametrize("write", ["NFC", "NFD"])
def test_accents_match_whether_composed_or_not(tmp_path, write):
    """A Mac decomposes the accents of file names."""
    for other in ("NFC", "NFD"):
        folder = tmp_path / other
        folder.mkdir()
        for name in ("café.png", "forêt.npy"):
            (folder / unicodedata.normalize(write, name)).touch()
        ids = [unicodedata.normalize(other, "café")]
        assert len(match_images(ids, by_path(folder), "")) == 1
        assert len(match_images(ids, by_name(list_tree(folder)), "")) == 1
        ids = [unicodedata.normalize(other, "forêt.npy")]
        assert len(match_images(ids, by_path(folder, any_name=True), "")) == 1


@pytest.mark.parametrize("ways", ["path", "name"])
def test_both_ways_refuse_the_same_ids(folder, ways):
    (folder / "b.tif").unlink()
    candidates = by_path(folder) if ways == "path" else by_name(list_tree(folder))
    with pytest.raises(FileNotFoundError, match=r"2 of 3 label rows have no image, .* \['x', 'y/z'\]\. Get them\."):
        match_images(["x", "a", "y/z"], candidates, "Get them.")
    with pytest.raises(ValueError, match=r"ids 'a' and './a.png' both mean .*a.png; keep one"):
        match_images(["a", "./a.png"], candidates, "")
    with pytest.raises(ValueError, match=r"id '../a' does not name a file"):
        match_images(["../a"], candidates, "")


def test_only_names_must_be_unique_in_a_tree(folder):
    with pytest.raises(ValueError, match=r"b.JPG and .*b.tif have the same name; remove or rename one of them"):
        list_tree(folder)
    with pytest.raises(ValueError, match=r"id 'b' fits several images of .*\['b.JPG', 'b.tif'\]; write the exact"):
        match_images(["b"], by_path(folder), "")
