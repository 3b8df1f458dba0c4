"""`attnfd plan --equal-time`: the epochs that fit into one time."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from attnfd.bench import equal_time, timing
from attnfd.bench.equal_time import Budget
from attnfd.config.params import load_params
from attnfd.errors import UserError
from tests import miniature


def test_each_gets_what_fits_into_the_time() -> None:
    seconds = {"none": 0.1, "kd": 0.15, "attnfd": 0.3}
    assert equal_time.share(seconds, dict.fromkeys(seconds, 60)) == [
        Budget("none", 0.1, 60, 180, 60),
        Budget("kd", 0.15, 60, 120, 40),
        Budget("attnfd", 0.3, 60, 60, 20),
    ]


def test_the_longest_is_the_one_that_takes_most_time_in_its_own_epochs() -> None:
    found = equal_time.share({"none": 0.1, "kd": 0.2}, {"none": 90, "kd": 30})
    assert [(one.as_the_longest, one.as_none) for one in found] == [(90, 90), (45, 45)]
    (_, slow) = equal_time.share({"none": 0.1, "kd": 10}, {"none": 1, "kd": 1})
    assert slow.as_none == 1


def test_it_is_measured_for_the_methods_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_bytes((miniature.PROJECT / "params.yaml").read_bytes())
    run = {**miniature.RUN, "methods": ["kd", "attnfd"]}
    miniature.change(tmp_path, {"run": run, "recipes": {"shapes": miniature.SHAPES}})
    miniature.change(tmp_path, {"methods": {"kd": {"on": {"shapes": {"epochs": 5}}}}})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNFD_DEVICE", "cpu")
    monkeypatch.setattr(timing, "WARM_UP", 1)
    monkeypatch.setattr(equal_time, "ROUNDS", 1)
    found = equal_time.budgets(load_params(), "shapes")
    assert [(one.method, one.epochs) for one in found] == [("none", 2), ("kd", 5), ("attnfd", 2)]
    assert all(one.seconds_per_step > 0 for one in found)
    console = Console(file=io.StringIO(), width=120)
    equal_time.show("shapes", found, console)
    assert "methods.<method>.on.shapes.epochs" in console.file.getvalue()
    with pytest.raises(UserError, match="unknown name 'shape'"):
        equal_time.budgets(load_params(), "shape")
