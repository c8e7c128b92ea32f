import pytest
import sampler_coverage
import torch


@pytest.fixture
def table(tmp_path):
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(120, 4, generator=generator) < torch.tensor([0.8, 0.5, 0.2, 0.05])
    rows = [
        f"{row},{'train' if row % 3 else 'test'}," + ",".join(map(str, x.int().tolist()))
        for row, x in enumerate(labels)
    ]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["id,part,a,b,c,rare", *rows]) + "\n")
    return path


def test_the_rarest_label_has_a_pair_in_each_balanced_batch(table, capsys):
    options = ["--labels", str(table), "--batch-size", "12", "--passes", "3", "--rarest", "2"]
    shares = sampler_coverage.main([*options, "--ignore-columns", "part"])
    assert shares["shuffled"][0] < 0.5
    assert shares["balanced"][:2] == [1, 1]
    assert shares["balanced, every image"] == [1, 1, 1]
    assert "rare" in capsys.readouterr().out
    sampler_coverage.main([*options, "--split-column", "part", "--split", "test"])
    assert "40 images, 4 labels" in capsys.readouterr().out


def test_bad_command_lines(table, capsys):
    with pytest.raises(SystemExit, match="no label table"):
        sampler_coverage.main(["--labels", "nowhere.csv"])
    with pytest.raises(SystemExit, match=r"--split must be one of \['test', 'train'\], got 'val'"):
        sampler_coverage.main(["--labels", str(table), "--split-column", "part", "--split", "val"])
    with pytest.raises(SystemExit, match="batch_size must be at most 120"):
        sampler_coverage.main(["--labels", str(table), "--ignore-columns", "part", "--batch-size", "500"])
    with pytest.raises(SystemExit):
        sampler_coverage.main(["--split", "train"])
    assert "--split and --split-column must be given together" in capsys.readouterr().err
