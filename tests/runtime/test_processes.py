"""A training in two processes computes the same as a training in one process."""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from attnfd import discovery
from tests import miniature
from tests.data import trees

METHODS = discovery.names("distillers")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The results of `tests/training/together.py` in one process, and in each of two processes."""
    folder = tmp_path_factory.mktemp("together")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("ATTNFD_CAMVID_ROOT", raising=False)
        # Five images of two sizes in batches of two: the processes get unequal shares.
        sizes = ((12, 16), (9, 7), (12, 16), (12, 16), (9, 7))
        trees.prepared_tree(Path("tree"), {"train": sizes[:2], "val": sizes})
    for starter, file in (((sys.executable,), "one"), (TORCHRUN, "two")):
        program = (str(miniature.PROJECT / "tests/training/together.py"), str(folder), str(folder / file))
        done = miniature.run(folder, *starter, *program, PYTHONPATH=str(miniature.PROJECT))
        assert done.returncode == 0, done.stderr[-3000:]
    ((one,), two) = (torch.load(folder / file) for file in ("one", "two"))
    assert len(two) == 2
    return one, two


@pytest.mark.parametrize("method", METHODS)
def test_gradients_and_memories_are_those_of_the_whole_batch(found: Any, method: str) -> None:
    one, two = found
    assert any(key.startswith("gradient ") for key in one[method])
    for process in two:
        assert process[method].keys() == one[method].keys()
        for key, value in one[method].items():
            torch.testing.assert_close(
                process[method][key], value, rtol=1e-6, atol=1e-9, msg=f"{key}: differs"
            )


def test_bn_takes_bfloat16(found: Any) -> None:
    one, two = found
    expected = one["bfloat16"]
    assert expected["output"].dtype == torch.bfloat16
    for process in two:
        assert process["bfloat16"].keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(process["bfloat16"][key], value)


def test_no_image_is_counted_twice_or_left_out(found: Any) -> None:
    one, two = found
    pixels = 3 * 12 * 16 + 2 * 9 * 7
    assert 0.8 * pixels < one["confusion"].sum() < pixels  # without void pixels
    for process in two:
        assert torch.equal(process["confusion"], one["confusion"])


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    folder = miniature.clone(tmp_path)
    miniature.change(folder, {"recipes": {"shapes": {"train_teacher": {"batch_size": 3}}}})
    assert (
        miniature.run(folder, sys.executable, "-m", "attnfd", "prepare", "--dataset", "shapes").returncode
        == 0
    )
    done = miniature.run(folder, *TORCHRUN, "--module", "attnfd", "train_teacher", "--dataset", "shapes")
    assert done.returncode != 0
    assert "error: training.batch_size: found 3 for 2 processes; allowed: a multiple" in done.stderr
    miniature.change(folder, {"recipes": {"shapes": {"train_teacher": {"batch_size": 4}}}})
    done = miniature.run(folder, *TORCHRUN, "--module", "attnfd", "train_teacher", "--dataset", "shapes")
    assert done.returncode != 0
    assert "error: training.sync_bn: found true for 2 processes on a CPU" in done.stderr
    done = miniature.run(folder, *TORCHRUN, "--module", "attnfd", "freeze", "--dataset", "shapes")
    assert done.returncode != 0
    allowed = "train_teacher, distill, tune, ablate"
    assert f"error: torchrun: found attnfd freeze; allowed: {allowed}" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", ["attnfd", "cirkd"])
def test_cells_by_torchrun_are_cells_like_others(tmp_path: Path, method: str) -> None:
    folder = miniature.clone(tmp_path)
    miniature.change(
        folder, {"recipes": {"shapes": {"training": {"precision": "32-true", "sync_bn": False}}}}
    )
    assert miniature.run(folder, "dvc", "repro", "freeze").returncode == 0
    cell = ("--dataset", "shapes", "--student", "mobilenetv2", "--method", method, "--seed", "0")
    done = miniature.run(folder, *TORCHRUN, "--module", "attnfd", "distill", *cell)
    assert done.returncode == 0, done.stderr
    miniature.change(folder, {"run": {"methods": [method]}})
    name = f"distill@shapes-mobilenetv2-{method}-0"
    assert miniature.run(folder, "dvc", "commit", "--force", name).returncode == 0
    again = miniature.run(folder, "dvc", "repro", name)
    assert f"Stage '{name}' didn't change" in again.stdout
    assert miniature.run(folder, "dvc", "repro", f"evaluate@shapes-mobilenetv2-{method}-0").returncode == 0
    results = folder / f"results/shapes/mobilenetv2/{method}/0/metrics.json"
    history = pd.read_csv(folder / f"models/shapes/mobilenetv2/{method}/0/history.csv")
    # The float32 score of two processes is the same as that of a later evaluation in one process.
    assert json.loads(results.read_text())["miou"] == pytest.approx(history["miou"].max(), abs=1e-12)
    listed = miniature.run(folder, sys.executable, "-c", RUNS)
    assert listed.stdout.split() == ["teacher", f"mobilenetv2-{method}-0"]  # one run, not two


RUNS = """
import mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
runs = mlflow.search_runs(search_all_experiments=True, order_by=["attributes.start_time"])
print(*runs["tags.mlflow.runName"])
"""
