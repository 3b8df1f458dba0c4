"""Results as a data frame."""

import shutil
from typing import Any

import pandas as pd
import pytest

import attnfd
import attnfd.results.style  # The package has the same name; it must not hide the function.
from attnfd import paths
from attnfd.errors import UserError
from tests.report import synthetic


def test_results_of_a_dataset() -> None:
    synthetic.results(synthetic.params(seeds=[0, 1, 2]), synthetic.THREE_SEEDS)
    shutil.copytree(paths.RESULTS / "tiny", paths.RESULTS / "other")
    frame = attnfd.results("tiny")
    assert frame["cell"][0] == "teacher"
    assert frame["seed"].isna().tolist() == [True] + [False] * (len(frame) - 1)
    students = frame[(frame["student"] == "resnet18") & (frame["variant"] == "")]
    means = students.groupby("method")["miou"].mean()
    assert means["attnfd"] == pytest.approx(0.72)
    assert means["attnfd"] - means["none"] == pytest.approx(0.10)
    assert set(frame["variant"]) == {"", "ed", "b"}
    assert {"mean_accuracy", "parameters", "multiply_adds", "images"} <= set(frame.columns)
    assert frame["seed"].dtype == pd.Int64Dtype()


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("tinny", "unknown name 'tinny'; did you mean 'tiny'? allowed: tiny"),
        (None, "results: found None; pass the name of a dataset, such as 'shapes'"),
        (["tiny"], "results: found ['tiny']; pass the name of a dataset"),
    ],
)
def test_other_names_say_what_to_pass(dataset: Any, message: str) -> None:
    synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    with pytest.raises((TypeError, UserError)) as stopped:
        attnfd.results(dataset)
    assert message in str(stopped.value)


def test_without_results() -> None:
    with pytest.raises(UserError, match=r"results: found none below .*; run dvc repro, or dvc pull"):
        attnfd.results("tiny")
