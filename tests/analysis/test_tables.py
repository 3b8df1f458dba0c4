"""Tables of results with means, deviations and differences that were calculated by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from attnfd import paths
from attnfd.analysis import tables
from attnfd.errors import UserError
from attnfd.paths import Cell
from attnfd.report import figures
from tests.report import synthetic
from tests.report.test_figures import NAMES


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
    for unpaired in (found["none",], found["",]):
        assert all(math.isnan(unpaired[column]) for column in ("difference", "low", "high"))
        assert unpaired["verdict"] == ""


def test_intervals_of_three_seeds():
    # The images are equal, so only the seeds vary: Student's t with 2 degrees of freedom, 4.30 at 97.5 %.
    # attnfd − none: 0.10, 0.09, 0.11; kd − none: 0, −0.02, −0.04.
    cells = synthetic.results(synthetic.params(seeds=[0, 1, 2]), synthetic.THREE_SEEDS)
    found = rows(tables.comparison(tables.results(cells)), "method")
    ours, kd = found["attnfd",], found["kd",]
    assert ours["verdict"] == "better"
    assert (ours["low"], ours["high"]) == pytest.approx((0.075, 0.125), abs=0.004)
    assert kd["verdict"] == "not significant"
    assert (kd["low"], kd["high"]) == pytest.approx((-0.07, 0.03), abs=0.008)


def test_one_seed_has_no_deviation():
    cells = synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    table = tables.comparison(tables.results(cells))
    assert table["miou_std"].isna().all()
    assert list(table["verdict"]) == ["", "", "", ""]  # only one pair of trainings


def test_without_baseline_there_is_no_difference():
    settings = synthetic.params(methods=["attnfd"])
    mious = {
        name: miou for name, miou in synthetic.ONE_SEED.items() if "none" not in name and "kd" not in name
    }
    table = tables.comparison(tables.results(synthetic.results(settings, mious)))
    assert table["difference"].isna().all()


def test_differences_are_of_the_seeds_that_both_have():
    found = tables.results(synthetic.results(synthetic.params(seeds=[0, 1, 2]), synthetic.THREE_SEEDS))
    found = found[(found["method"] != "none") | (found["seed"] != "2")]
    table = tables.comparison(found)
    ours = rows(table, "method")["attnfd",]
    assert ours["seeds"] == 3
    assert ours["difference"] == pytest.approx((0.10 + 0.09) / 2)
    assert ours["miou"] == pytest.approx(0.72)


def test_ablation_takes_none_and_the_full_method_from_distill_and_has_the_order_of_the_paper():
    settings = synthetic.params(seeds=[0, 1, 2])
    cells = synthetic.results(settings, synthetic.THREE_SEEDS)
    table = tables.ablation(tables.results(cells), settings, "tiny")
    assert list(table["variant"]) == ["none", "b", "ed", "attnfd"]
    assert list(zip(table["backbone"], table["encoder"], table["decoder"], strict=True)) == [
        (False, False, False), (True, False, False), (False, True, True), (True, True, True),
    ]  # fmt: skip
    assert list(table["miou"]) == pytest.approx([0.62, 0.64, 0.68, 0.72])
    assert list(table["difference"])[1:] == pytest.approx([0.02, 0.06, 0.10])


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


def test_variants_that_change_more_than_the_layers_have_a_table_of_their_own():
    settings = synthetic.params(ablate={"variants": ["plain", "b", "early"]})
    mious = {name: miou for name, miou in synthetic.ONE_SEED.items() if "-ed-" not in name}
    mious |= {"resnet18-attnfd-plain-0": 0.66, "resnet18-attnfd-early-0": 0.75}
    found = tables.results(synthetic.results(settings, mious))
    assert list(tables.ablation(found, settings, "tiny")["variant"]) == ["none", "b", "attnfd"]
    table = tables.settings(found, settings)
    assert list(table["variant"]) == ["attnfd", "plain", "early"]
    assert list(table["changed"]) == [
        "",
        "normalize = none, attention.channel = false, attention.reduction = 8",
        'layers = ["backbone"], decay = 0.5',
    ]
    assert list(table["difference"])[1:] == pytest.approx([-0.04, 0.05])
    assert list(table["verdict"]) == ["", "", ""]


def test_networks_are_measured_by_the_teacher():
    found = tables.results(synthetic.results(synthetic.params(), synthetic.ONE_SEED))
    found.loc[found["student"] == "teacher", "parameters"] = 2 * 16_608_181
    table = tables.networks(tables.comparison(found))
    assert list(table["network"]) == ["teacher", "resnet18"]
    assert list(table["parameters_share"]) == [1, 0.5]
    assert list(table["multiply_adds_share"]) == [1, 1]


def test_confusion_of_many_classes_leaves_out_what_hardly_occurs():
    (cell,) = (cell for cell in Cell.all(synthetic.params().run, "tiny") if cell.name == "teacher")
    matrix = 995 * np.eye(40, dtype=np.uint32)
    matrix[3, 5], matrix[4, 2] = 5, 4  # 5 of 1000 and 4 of 999 pixels
    matrix[7] = 0
    cell.results.mkdir(parents=True)
    np.savez(cell.results / paths.CONFUSION, ids=["a"], matrices=matrix[None])
    names = [f"class {number}" for number in range(40)]
    table = tables.confusion([cell], names)
    assert list(table["truth"][:40]) == list(table["prediction"][:40]) == names
    assert table["share"][:40].tolist() == pytest.approx([*[1] * 3, 0.995, 995 / 999, 1, 1, 0, *[1] * 32])
    assert table.loc[40:, ["truth", "prediction", "share"]].values.tolist() == [["class 3", "class 5", 0.005]]


def test_names_of_classes_stay_text_whatever_they_look_like():
    (cell,) = (cell for cell in Cell.all(synthetic.params().run, "tiny") if cell.name == "teacher")
    names = ["7", "None", "NA", "1e5", "nan", "bicycle, bike"]
    cell.results.mkdir(parents=True)
    given = pd.DataFrame(
        {"class": names, "iou": [0.5, None, 0.5, 0.5, 0.5, 0.5], "accuracy": 0.5, "pixels": 1}
    )
    given.to_csv(cell.results / paths.PER_CLASS, index=False)
    found = tables.per_class([cell])
    assert list(found["class"]) == names
    assert found["iou"].isna().tolist() == [False, True, False, False, False, False]


def test_confusion_is_of_the_teacher_and_of_the_first_seed_with_and_without_attnfd():
    cells = synthetic.results(synthetic.params(seeds=[0, 1, 2]), synthetic.THREE_SEEDS)
    table = tables.confusion(cells, synthetic.CLASSES)
    assert list(table["cell"].unique()) == ["teacher", "resnet18-none-0", "resnet18-attnfd-0"]
    share = table[table["cell"] == "resnet18-attnfd-0"].pivot(
        index="truth", columns="prediction", values="share"
    )
    # An IoU of 0.7 for both classes: 1.4 parts right, 0.3 wrong.
    right, wrong = 1.4 / 1.7, 0.3 / 1.7
    names = list(synthetic.CLASSES)
    np.testing.assert_allclose(
        share.loc[names, names], [[right, wrong, 0], [wrong, right, 0], [0, 0, 0]], rtol=1e-9
    )


def test_only_active_cells_are_read():
    synthetic.results(synthetic.params(seeds=[0, 1, 2]), synthetic.THREE_SEEDS)
    found = tables.results(Cell.all(synthetic.params().run, "tiny"))
    assert set(found["cell"]) == set(synthetic.ONE_SEED)


def test_nested_summary():
    cells = synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    tree = tables.nested(tables.comparison(tables.results(cells)))
    assert tree == {
        "teacher": {"miou": pytest.approx(80)},
        "resnet18": {
            "none": {"miou": pytest.approx(60)},
            "kd": {"miou": pytest.approx(55)},
            "attnfd": {"miou": pytest.approx(70)},
        },
    }


@pytest.mark.parametrize(
    ("read", "file"),
    [
        (tables.results, "metrics.json"),
        (tables.results, "confusion.npz"),
        (tables.per_class, "per_class.csv"),
        (lambda cells: tables.confusion(cells, synthetic.CLASSES), "confusion.npz"),
    ],
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


def test_curves_of_all_cells_are_below_each_other():
    cells = synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    table = tables.curves(cells)
    assert len(table) == 2 * len(cells)
    last = table[(table["method"] == "attnfd") & (table["variant"] == "b") & (table["epoch"] == 2)]
    assert last["miou"].item() == 0.65
    assert table.loc[table["epoch"] == 1, "miou"].isna().all()


def test_curves_of_a_teacher_that_was_imported():
    """The history of an imported teacher is its score on import, as epoch 0."""
    cells = synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    (cells[0].model / paths.HISTORY).write_text("epoch,loss,ce,lr,miou\n0,,,,0.5\n")
    table = tables.curves(cells)
    ce, miou = figures.curves(table, {}, NAMES).axes[:2]
    assert not ce.lines[0].get_ydata().size
    assert (miou.lines[0].get_xdata(), miou.lines[0].get_ydata()) == ([0], [50])
