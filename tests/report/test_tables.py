"""Tables of results whose means, deviations and differences are worked out by hand."""

import math

import pytest

from attnfd import paths
from attnfd.errors import UserError
from attnfd.report import figures, tables

from . import synthetic


def rows(table, *by):
    return {tuple(row[key] for key in by): row for row in table.to_dict("records")}


def test_comparison_of_three_seeds():
    cells = synthetic.results(synthetic.params(seeds=[0, 1, 2]), synthetic.THREE_SEEDS)
    table = tables.comparison(tables.results(cells))
    assert list(zip(table["student"], table["method"], strict=True)) == [
        ("teacher", ""), ("resnet18", "none"), ("resnet18", "kd"), ("resnet18", "attnfd"),
    ]  # fmt: skip
    found = rows(table, "method")
    ours = found["attnfd",]
    assert ours["seeds"] == 3
    assert ours["miou"] == pytest.approx(0.72)
    assert ours["miou_std"] == pytest.approx(math.sqrt((0.02**2 + 0.01**2 + 0.03**2) / 2))
    assert ours["difference"] == pytest.approx(0.10)
    assert ours["mean_accuracy"] == pytest.approx(0.82)
    assert found["kd",]["miou_std"] == pytest.approx(0)
    assert found["kd",]["difference"] == pytest.approx(-0.02)
    assert math.isnan(found["none",]["difference"])
    assert math.isnan(found["",]["difference"])


def test_one_seed_has_no_deviation():
    cells = synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    table = tables.comparison(tables.results(cells))
    assert table["miou_std"].isna().all()
    text = tables.markdown(table)
    assert "±" not in text
    assert "| resnet18 | attnfd | 70.00 | +10.00 | 80.00 | 90.00 | 16.6 M | n = 1 |" in text
    assert "| resnet18 | kd | 55.00 | -5.00 | 65.00 | 90.00 | 16.6 M | n = 1 |" in text


def test_without_baseline_there_is_no_difference():
    settings = synthetic.params(methods=["attnfd"])
    mious = {
        name: miou for name, miou in synthetic.ONE_SEED.items() if "none" not in name and "kd" not in name
    }
    table = tables.comparison(tables.results(synthetic.results(settings, mious)))
    assert table["difference"].isna().all()


def test_ablation_takes_none_and_the_full_method_from_distill():
    settings = synthetic.params(seeds=[0, 1, 2])
    cells = synthetic.results(settings, synthetic.THREE_SEEDS)
    table = tables.ablation(tables.results(cells), settings, "tiny")
    assert list(table["variant"]) == ["none", "b", "ed", "attnfd"]
    assert list(zip(table["backbone"], table["encoder"], table["decoder"], strict=True)) == [
        (False, False, False), (True, False, False), (False, True, True), (True, True, True),
    ]  # fmt: skip
    assert list(table["miou"]) == pytest.approx([0.62, 0.64, 0.68, 0.72])
    assert list(table["difference"])[1:] == pytest.approx([0.02, 0.06, 0.10])
    assert "| resnet18 | ed |  | ✓ | ✓ | 68.00 ± 1.00 | +6.00 |" in tables.markdown(table)


def test_ablation_compares_equal_seeds_and_its_own_students():
    settings = synthetic.params(seeds=[0, 1, 2], students=["mobilenetv2", "resnet18"], ablate={"seeds": [1]})
    kept = {
        name: miou
        for name, miou in synthetic.THREE_SEEDS.items()
        if not name.endswith(("b-0", "b-2", "ed-0", "ed-2"))
    }
    more = {
        name.replace("resnet18", "mobilenetv2"): 0.3
        for name in kept
        if name != "teacher" and "-b-" not in name and "-ed-" not in name
    }
    table = tables.ablation(tables.results(synthetic.results(settings, kept | more)), settings, "tiny")
    assert set(table["student"]) == {"resnet18"}
    assert list(table["seeds"]) == [1, 1, 1, 1]
    assert list(table["miou"]) == pytest.approx([0.62, 0.65, 0.68, 0.71])


def test_only_active_cells_are_read():
    synthetic.results(synthetic.params(seeds=[0, 1, 2]), synthetic.THREE_SEEDS)
    found = tables.results(tables.cells(synthetic.params().run, "tiny"))
    assert set(found["cell"]) == set(synthetic.ONE_SEED)


def test_nested_summary():
    cells = synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    tree = tables.nested(tables.comparison(tables.results(cells)))
    assert set(tree) == {"teacher", "resnet18"}
    assert tree["teacher"]["miou"] == pytest.approx(0.8)
    assert {method: scores["miou"] for method, scores in tree["resnet18"].items()} == pytest.approx(
        {"none": 0.6, "kd": 0.55, "attnfd": 0.7}
    )


@pytest.mark.parametrize(
    ("read", "file"), [(tables.results, "metrics.json"), (tables.per_class, "per_class.csv")]
)
def test_a_missing_cell_is_named_with_the_command(read, file):
    cells = synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    missing = next(cell for cell in cells if cell.name == "resnet18-attnfd-0")
    (missing.results / file).unlink()
    with pytest.raises(
        UserError, match=rf"results/tiny/resnet18/attnfd/0/{file}: .*resnet18-attnfd-0.*dvc repro report@tiny"
    ):
        read(cells)


def test_an_untrained_cell_is_named():
    cells = synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    (cells[1].model / "history.csv").unlink()
    with pytest.raises(UserError, match="resnet18-none-0"):
        tables.curves(cells)


def test_curves_of_all_cells_lie_below_each_other():
    cells = synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    table = tables.curves(cells)
    assert len(table) == 2 * len(cells)
    last = table[(table["method"] == "attnfd") & (table["variant"] == "b") & (table["epoch"] == 2)]
    assert last["miou"].item() == 0.65
    assert table.loc[table["epoch"] == 1, "miou"].isna().all()


def test_curves_of_a_teacher_that_was_imported():
    """Its history is the score that it came with, as epoch 0."""
    cells = synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    (cells[0].model / paths.HISTORY).write_text("epoch,loss,ce,lr,miou\n0,,,,0.5\n")
    table = tables.curves(cells)
    ce, miou = figures.curves(table, {}).axes[:2]
    assert not ce.lines[0].get_ydata().size
    assert (miou.lines[0].get_xdata(), miou.lines[0].get_ydata()) == ([0], [50])
