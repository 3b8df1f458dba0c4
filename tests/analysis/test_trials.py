"""The weights that are chosen from trials, and how they are written to params.yaml."""

import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from ruamel.yaml import YAML

from attnfd.analysis import choosing, trials
from attnfd.analysis.editing import edited
from attnfd.config.params import load_params
from attnfd.errors import UserError
from attnfd.paths import CARD, Cell
from tests import miniature

MIOUS = {
    "kd": {"0.3": (0.2, 0.4), "1": (0.5, 0.1), "3": (0.3, 0.3)},
    "cwd": {"0.3": (0.1, 0.1), "1": (0.2, 0.2), "3": (0.3, 0.4)},
}
"""By method and factor, of two students."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A working directory with these trials."""
    text = (miniature.PROJECT / "params.yaml").read_text()
    students = ["resnet18", "mobilenetv2"]
    for old, new in (
        ("    students: [mobilenetv2]\n    methods: []", f"    students: {students}\n    methods: [kd, cwd]"),
        ("factors: [0.1, 0.3, 1, 3, 10]", "factors: [0.3, 1, 3]"),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "params.yaml").write_text(text)
    weights = {"kd": 1, "cwd": 3}
    for method, by_factor in MIOUS.items():
        for factor, mious in by_factor.items():
            for student, miou in zip(students, mious, strict=True):
                folder = Cell.trial("shapes", student, method, factor, 0).model
                folder.mkdir(parents=True)
                card = {
                    "weight": weights[method] * float(factor),
                    "trained_on": 9,
                    "scored_on": 3,
                    "miou": miou,
                }
                (folder / CARD).write_text(json.dumps(card))
    return tmp_path


def test_the_best_mean_is_chosen_and_of_equal_ones_the_nearest_to_1(project: Path) -> None:
    table = trials.table(trials.scores(trials.cells(load_params(), "shapes")))
    assert list(table["trials"]) == [2] * 6
    means = dict(zip(zip(table["method"], table["factor"], strict=True), table["miou"], strict=True))
    assert means["kd", "3"] == pytest.approx(0.3)
    chosen = table[table["chosen"]]
    assert dict(zip(chosen["method"], chosen["factor"], strict=True)) == {"kd": "1", "cwd": "3"}


def test_choose_writes_the_weights_and_says_so(project: Path) -> None:
    before = (project / "params.yaml").read_text()
    choices = choosing.choose("shapes")
    after = (project / "params.yaml").read_text()
    assert [(one.method, one.before, one.weight) for one in choices] == [("kd", 1, 1), ("cwd", 3, 9)]
    changed = [
        pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]
    ]
    assert changed == [
        (
            "  cwd: {weight: 3, temperature: 4}",
            "  cwd: {weight: 3, temperature: 4, on: {shapes: {weight: 9}}}",
        )
    ]
    assert load_params().method("cwd", "shapes").weight == 9
    shown = Console(file=io.StringIO(), width=100)
    choosing.show("shapes", choices, shown)
    assert "methods.cwd.on.shapes.weight: 9" in shown.file.getvalue()
    assert "methods.kd" not in shown.file.getvalue()
    assert [one.at_end for one in choices] == [False, True]
    said = " ".join(shown.file.getvalue().split())
    assert "The best factor is at an end of tune.factors for cwd: add one beyond it" in said
    choosing.choose("shapes")
    assert (project / "params.yaml").read_text() == after


def test_a_trial_that_has_not_run_is_named(project: Path) -> None:
    shutil.rmtree("tuning/shapes/mobilenetv2/cwd/3")
    before = (project / "params.yaml").read_text()
    with pytest.raises(
        UserError, match=r"tuning/shapes/mobilenetv2/cwd/3/0/card.json: not found.*dvc repro tune"
    ):
        choosing.choose("shapes")
    assert (project / "params.yaml").read_text() == before


def test_without_a_method_to_tune_there_is_nothing_to_choose(project: Path) -> None:
    miniature.change(project, {"run": {"tune": {"methods": []}}})
    with pytest.raises(UserError, match=r"run.tune.methods: found no method"):
        choosing.choose("shapes")


def test_the_shipped_file_keeps_every_other_line() -> None:
    text = (miniature.PROJECT / "params.yaml").read_text()
    assert edited(text, {}) == text
    written = edited(
        text,
        {
            ("methods", method, "on", "voc", "weight"): weight
            for method, weight in (("kd", 0.3), ("cirkd", 3.0), ("attnfd", 10.0))
        },
    )
    before = YAML(typ="safe").load(text)
    after = YAML(typ="safe").load(written)
    assert after["methods"]["cirkd"]["on"]["voc"].pop("weight") == 3
    assert after["methods"]["kd"].pop("on") == {"voc": {"weight": 0.3}}
    assert after["methods"]["attnfd"]["on"].pop("voc") == {"weight": 10}
    assert after == before
    comments = [[line for line in one.splitlines() if "#" in line] for one in (text, written)]
    assert comments[0] == comments[1]


def test_the_shipped_file_keeps_its_comments_where_a_value_goes_into_an_empty_mapping() -> None:
    text = (miniature.PROJECT / "params.yaml").read_text()
    assert "  step_ms: {}  #" in text
    before = text.splitlines()
    after = edited(text, {("report", "step_ms", "voc", "resnet18"): {"none": 21.5}}).splitlines()
    [line] = [number for number, words in enumerate(before) if words.startswith("  step_ms:")]
    assert after[line].startswith("  step_ms: {voc: {resnet18: {none: 21.5}}} #")
    assert [*after[:line], *after[line + 1 :]] == [*before[:line], *before[line + 1 :]]


def test_a_nans_mean_is_never_chosen() -> None:
    found = pd.DataFrame(
        {"method": ["kd"] * 2, "factor": ["1", "3"], "weight": [1, 3], "miou": [float("nan"), 0.1]}
    )
    assert list(trials.table(found)["chosen"]) == [False, True]
