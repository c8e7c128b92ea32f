import os

import pytest
import torch

from pml_macl.datasets import read_split, write_split

TABLE = "id,split\na,train\nb,val\nc,test\n"
SPLITS = {"a": "train", "b": "val", "c": "test"}


def test_read_split_returns_what_write_split_saved(tmp_path):
    ids = ["a", "sub/b.tif", "with, comma", 'with "quotes"', "été", "=1+1", "a\tb", "c;d", "12"]
    parts = torch.arange(9) % 2
    write_split(tmp_path / "s.csv", ids, parts, names=("train, augmented", "test"))
    expected = [("train, augmented", "test")[part] for part in parts.tolist()]
    assert list(read_split(str(tmp_path / "s.csv")).items()) == list(zip(ids, expected, strict=True))
    assert os.listdir(tmp_path) == ["s.csv"]


def test_the_bytes_of_a_file(tmp_path):
    write_split(tmp_path / "s.csv", ["a", "b", "c"], torch.tensor([0, 1, 2], dtype=torch.uint8))
    assert (tmp_path / "s.csv").read_bytes() == TABLE.encode()


@pytest.mark.parametrize(
    "table",
    [
        TABLE.replace("\n", "\r\n"),
        TABLE.replace(",", "\t"),
        TABLE.replace(",", " , "),
        TABLE.rstrip("\n"),
        TABLE.replace("\n", "\n\n"),
        TABLE.encode("utf-8-sig").decode(),
    ],
)
def test_forms_of_one_table(tmp_path, table):
    (tmp_path / "s.csv").write_bytes(table.encode())
    assert read_split(tmp_path / "s.csv") == SPLITS


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "s.csv is empty"),
        ("id,split\n", "a header but no rows"),
        ("a,train\nb,val\n", "must begin with the line 'id,split', got 'a,train'"),
        ("id,part\na,train\n", "must begin with the line 'id,split', got 'id,part'"),
        ("id;split\na;train\n", "must begin with the line 'id,split', got 'id;split'"),
        (TABLE + "d\n", r"line 5: a row must have an id and a split, got \['d'\]; correct that row"),
        (TABLE + "d,test,1\n", "line 5: a row must have an id and a split"),
        (TABLE + "d,\n", "line 5: a row must have an id and a split"),
        (TABLE + ",test\n", "line 5: a row must have an id and a split"),
        (TABLE + "\na,test\n", "line 6: id 'a' appears twice"),
        (TABLE + '"d,test\n', "not a comma- or tab-separated UTF-8 text"),
        (TABLE.encode("utf-16"), "not a comma- or tab-separated UTF-8 text"),
    ],
)
def test_hostile_tables(tmp_path, table, message):
    (tmp_path / "s.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(ValueError, match=message):
        read_split(tmp_path / "s.csv")


def test_a_missing_file(tmp_path):
    for path in (tmp_path / "s.csv", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no split file at .*; make one with write_split\("):
            read_split(path)
    with pytest.raises(TypeError, match="path must be a path, got None"):
        read_split(None)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": None}, TypeError, "path must be a path, got None"),
        ({"ids": "abc"}, TypeError, "ids must be a sequence of strings, got 'abc'"),
        ({"ids": ["a", "b", 3]}, TypeError, "ids must be strings, got 3"),
        ({"ids": ["a", "b", "a"]}, ValueError, "ids must be distinct, got 'a' twice"),
        ({"ids": ["a", "b", ""]}, ValueError, "ids must not be empty"),
        ({"ids": ["a", "b", " c"]}, ValueError, "begin or end with a space, or contain line breaks, got ' c'"),
        ({"ids": ["a", "b", "c\nd"]}, ValueError, "or contain line breaks"),
        ({"ids": ["a", "b"]}, ValueError, r"parts must hold one part per id, shape \(2,\), got shape \(3,\)"),
        ({"parts": torch.zeros(3, 1, dtype=torch.long)}, ValueError, r"got shape \(3, 1\)"),
        ({"parts": [0, 1, 2]}, TypeError, "parts must be a tensor of integers"),
        ({"parts": torch.zeros(3)}, TypeError, "parts must be a tensor of integers"),
        ({"parts": torch.tensor([0, 3, 1])}, ValueError, "names must name every part, got part 3 and 3 names"),
        ({"parts": torch.tensor([0, -1, 1])}, ValueError, "names must name every part, got part -1 and 3 names"),
        ({"names": "tvs"}, TypeError, "names must be a sequence of strings, got 'tvs'"),
        ({"names": ("train", "train", "test")}, ValueError, "names must be distinct, got 'train' twice"),
    ],
)
def test_bad_arguments(tmp_path, arguments, error, message):
    good = {"path": tmp_path / "s.csv", "ids": ["a", "b", "c"], "parts": torch.tensor([0, 1, 2])}
    with pytest.raises(error, match=message):
        write_split(**{**good, **arguments})
    assert os.listdir(tmp_path) == []


def test_a_file_is_never_replaced(tmp_path):
    (tmp_path / "s.csv").write_text(TABLE)
    with pytest.raises(
        FileExistsError, match=r"s.csv already exists; read it with read_split, or remove it if no result depends on"
    ):
        write_split(tmp_path / "s.csv", ["d"], torch.tensor([0]))
    assert read_split(tmp_path / "s.csv") == SPLITS


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere for the split file s.csv; create it first"):
        write_split(tmp_path / "nowhere" / "s.csv", ["a"], torch.tensor([0]))


def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_split(tmp_path / "s.csv", ["a"], torch.tensor([0]))
    assert os.listdir(tmp_path) == []
