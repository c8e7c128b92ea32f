import combine


def test_every_combination_trains_and_is_evaluated(capsys):
    results = combine.main(["--num-images", "96", "--num-test-images", "60", "--epochs", "1", "--batch-size", "32"])
    assert len(results) == 8
    before = results.pop("before training")
    for name, metrics in results.items():
        assert metrics["ndcg"] != before["ndcg"], name
        assert all(0 < metrics[metric] <= 1 for metric in combine.METRICS)
    assert "MACLLoss with cross-batch memory" in capsys.readouterr().out
