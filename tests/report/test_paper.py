"""The paper's numbers are in the right rows."""

import itertools
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from attnfd import discovery
from attnfd.analysis.tables import COMBINATIONS
from attnfd.config.params import load_params
from attnfd.config.schema import LAYERS
from attnfd.models import backbones
from attnfd.report import paper, provenance
from tests.miniature import PROJECT


def comparison(reader, *rows):
    table = pd.DataFrame(rows, columns=["student", "method"])
    return paper.comparison(table, reader)


@pytest.mark.parametrize(
    ("reader", "student", "method", "miou", "std", "accuracy"),
    [
        ("voc", "teacher", "", 77.85, None, None),
        ("voc", "resnet18", "none", 67.50, None, None),
        ("voc", "resnet18", "overhaul", 70.67, 0.25, None),
        ("voc", "resnet18", "dist", 69.84, 0.11, None),
        ("voc", "mobilenetv2", "cirkd", 69.02, 0.16, None),
        ("voc", "mobilenetv2", "attnfd", 70.38, 0.16, None),
        ("cityscapes", "teacher", "", 77.66, None, 84.05),
        ("cityscapes", "resnet18", "cirkd", 70.49, None, 79.99),
        ("cityscapes", "resnet18", "dist", 71.81, None, 80.73),
        ("cityscapes", "mobilenetv2", "lad", 69.84, None, 80.49),
    ],
)
def test_comparison(reader, student, method, miou, std, accuracy):
    row = comparison(reader, (student, method)).iloc[0]
    for column, value in (("paper_miou", miou), ("paper_std", std), ("paper_accuracy", accuracy)):
        assert pd.isna(row[column]) if value is None else row[column] == pytest.approx(value / 100)


def test_a_row_that_the_paper_lacks_stays_empty():
    table = comparison("voc", ("resnet18", "cwd"), ("other", "attnfd"), ("resnet18", "attnfd"))
    assert list(table["paper_miou"].isna()) == [True, True, False]
    assert table["paper_miou"][2] == pytest.approx(0.7309)


def test_a_dataset_that_the_paper_lacks_gets_no_column():
    assert list(comparison("shapes", ("resnet18", "attnfd")).columns) == ["student", "method"]


def ablation(reader, student):
    layers = [[student, *row] for row in itertools.product([True, False], repeat=3)]
    table = paper.ablation(pd.DataFrame(layers, columns=["student", *LAYERS]), reader)
    distilled = ["".join(layer[0] for layer in LAYERS if row[layer]) for row in table.to_dict("records")]
    return table.set_index(pd.Index(distilled))


def test_ablation():
    table = 100 * ablation("voc", "resnet18")[["paper_miou", "paper_accuracy"]]
    assert tuple(table.loc["d"]) == pytest.approx((72.47, 82.13))
    assert tuple(table.loc["be"]) == pytest.approx((72.58, 81.71))
    assert tuple(table.loc["ed"]) == pytest.approx((72.92, 82.68))
    assert tuple(100 * ablation("voc", "mobilenetv2").loc["bd", ["paper_miou", "paper_accuracy"]]) == (
        pytest.approx((69.46, 78.65))
    )
    assert "paper_miou" not in ablation("cityscapes", "resnet18")


@pytest.mark.parametrize("student", ["resnet18", "mobilenetv2"])
def test_the_ends_of_table_3_are_rows_of_table_1(student):
    table = ablation("voc", student)["paper_miou"]
    ends = comparison("voc", (student, "none"), (student, "attnfd"))["paper_miou"]
    assert (table[""], table["bed"]) == tuple(ends)


def test_the_rows_of_table_3():
    assert ["".join(layer[0] for layer in layers) for layers in COMBINATIONS] == [
        "", "b", "e", "d", "be", "bd", "ed", "bed",
    ]  # fmt: skip


@pytest.mark.parametrize("dataset", ["voc", "cityscapes"])
def test_the_paper_s_training_is_that_of_its_recipes(dataset):
    table = provenance.recipe(load_params(PROJECT / "params.yaml"), dataset).set_index("setting")
    printed = table[table["paper"] != ""]
    assert len(printed) == 11
    assert list(printed["teacher"]) == list(printed["paper"])
    assert (
        list(printed["students"])[1:] == list(printed["paper"])[1:]
    )  # the first row is the teacher's backbone


def test_what_ships_has_a_title():
    assert all(discovery.component("distillers", name).title for name in discovery.names("distillers"))
    assert all(entry.title for entry in backbones.BACKBONES.values())


def test_methods_are_those_of_this_project():
    assert set(paper.METHODS) <= set(discovery.names("distillers"))


def test_classes_of_your_own_are_not_compared_with_the_papers() -> None:
    def card(reader: str, classes: int) -> Any:
        return SimpleNamespace(reader=reader, classes=("class",) * classes)

    assert paper.printed(card("voc", 21)) == "voc"
    assert paper.printed(card("cityscapes", 19)) == "cityscapes"
    assert paper.printed(card("voc", 2)) == paper.printed(card("shapes", 8)) == ""
