import trade_off


def run(loss, weight, value):
    return [{"loss": loss, "feature_weight": weight, "metrics": {"label_map": value}}]


def runs(side):
    """UC Merced with two losses, MACL joined and not."""
    macl, other = (0.7, 0.6) if side == trade_off.SEEN else (0.4, 0.5)
    return {
        "MACL": run("MACL", 0.0, macl),
        "MACL, joined 0.5": run("MACL", 0.5, macl - 0.1),
        "MulSupCon": run("MulSupCon", 0.0, other),
        "SupCon any": run("SupCon any", 0.0, other - 0.1),
        "Features, no training": run("Features, no training", 0.0, 0.1),
    }


EVERY = {f"{side}, UC Merced": runs(side) for side in (trade_off.SEEN, trade_off.UNSEEN)}


def test_a_line_goes_from_the_method_alone_to_the_largest_weight():
    assert trade_off.data_sets(EVERY) == ["UC Merced"]
    (x, more_x), (y, more_y) = zip(*trade_off.path_of(EVERY, "MACL", "UC Merced"), strict=True)
    assert [round(value) for value in (x, y, more_x, more_y)] == [70, 40, 60, 30]


def test_the_figure_names_the_closest_loss(tmp_path):
    assert trade_off.closest(EVERY) == ["MulSupCon"]
    text = trade_off.explained(EVERY)
    assert "at w = 0 and 0.5;" in text
    assert text.endswith("the grey line next to them is MulSupCon.")
    assert "page-trade_off-dark.svg#only-dark" in trade_off.save(EVERY, tmp_path / "page.md")
    alone = {key: {"MACL": by_loss["MACL"]} for key, by_loss in EVERY.items()}
    assert trade_off.explained(alone).endswith("The blue lines are MACL and its variants.")
