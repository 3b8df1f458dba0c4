"""MLflow's pages: datasets, pictures, saved views, means over seeds, and `attnfd ui` itself."""

import base64
import json
import multiprocessing
import re
import subprocess
import sys
import time
import urllib.request
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attnfd.analysis import tables
from attnfd.paths import Cell
from attnfd.results.write import Evaluated
from attnfd.tracking import runs, seeds, store, ui, views
from tests import miniature, servers
from tests.tracking.conftest import FRESH
from tests.tracking.test_runs import write_card, write_outs
from tests.tracking.test_summary import axes, train, write

mlflow = store.library()

SCORES = {
    "split": "val",
    "val": {"miou": 0.5},
    "miou": 0.5,
    "mean_accuracy": 0.625,
    "pixel_accuracy": 0.875,
    "parameters": 9,
    "images": 4,
    "iou": {"sky": 0.5},
}


def test_a_run_has_its_dataset_by_content_for_training_and_for_validation() -> None:
    cell = Cell.distilled("shown", "r18", "data", 0)
    write_outs(cell)
    with runs.open_run(cell, {}, FRESH) as run:
        run.data(write_card("shown"))
    inputs = mlflow.MlflowClient().get_run(run.id).inputs.dataset_inputs
    found = {
        one.dataset.name: (one.dataset.digest, [(tag.key, tag.value) for tag in one.tags]) for one in inputs
    }
    assert found == {
        "shown": ("0" * 12, [("mlflow.data.context", "training")]),
        "shown/val": ("0" * 12, [("mlflow.data.context", "validation")]),
    }
    profile = json.loads(inputs[0].dataset.profile)
    assert profile == {"train": {"images": 3}, "val": {"images": 2}}


def test_pictures_are_where_the_charts_and_the_comparison_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "log_model", lambda *given: None)
    cell = Cell.distilled("shown", "r18", "pictures", 0)
    write_outs(cell)
    cell.results.mkdir(parents=True)
    drawn = {}
    for number, name in enumerate(("overlays", "confusion", "curves")):
        drawn[name] = np.full((6, 9, 3), 40 * number, dtype=np.uint8)
        Image.fromarray(drawn[name]).save(cell.results / f"{name}.png")
    with runs.open_run(cell, {}, FRESH) as run:
        run.evaluated(Evaluated(SCORES, ["a"], torch.zeros(1, 3, 8, 8, dtype=torch.uint8)))
    client = mlflow.MlflowClient()
    top = {file.path for file in client.list_artifacts(run.id) if not file.is_dir}
    assert top == {"overlays.png", "confusion.png", "curves.png"}
    charts = [file.path for file in client.list_artifacts(run.id, "images") if file.path.endswith(".png")]
    assert sorted(path.split("/")[1].split("+")[0] for path in charts) == ["confusion", "overlays"]
    for path in charts:
        name = path.split("/")[1].split("+")[0]
        logged = np.asarray(
            Image.open(mlflow.artifacts.download_artifacts(run_id=run.id, artifact_path=path))
        )
        np.testing.assert_array_equal(logged, drawn[name])


def saved(experiment: str) -> dict[str, dict[str, Any]]:
    """The states of an experiment's saved views by name, decoded as a page does."""
    tags = mlflow.MlflowClient().get_experiment(experiment).tags
    found = [json.loads(value) for key, value in tags.items() if key.startswith("mlflow.sharedViewState.")]
    packed = {view["name"]: view["state"].removeprefix("deflate;") for view in found}
    return {name: json.loads(zlib.decompress(base64.b64decode(state))) for name, state in packed.items()}


class TestViews:
    def test_have_the_columns_that_answer_their_question(self) -> None:
        _, experiment = store.connect("viewed")
        states = saved(experiment)
        assert list(states) == ["Scores", "Cost", "By method, mean over seeds"]
        columns = {name: set(state["selectedColumns"]) for name, state in states.items()}
        who = {"tags.`student`", "tags.`method`", "tags.`seed`"}
        assert who | {"metrics.`miou`", "metrics.`mean_accuracy`"} <= columns["Scores"]
        assert who | {"metrics.`miou`", "metrics.`speed/training_seconds`"} <= columns["Cost"]
        assert "metrics.`miou`" in columns["By method, mean over seeds"]
        orders = {name: (state["orderByKey"], state["orderByAsc"]) for name, state in states.items()}
        assert orders == {
            "Scores": ("metrics.`miou`", False),
            "Cost": ("metrics.`speed/training_seconds`", False),
            "By method, mean over seeds": ("metrics.`miou`", False),
        }
        groups = states["By method, mean over seeds"]["groupBy"]
        assert groups["aggregateFunction"] == "average"
        assert [key["groupByData"] for key in groups["groupByKeys"]] == ["student", "method", "variant"]
        assert states["Scores"]["groupBy"] is states["Cost"]["groupBy"] is None

    def test_charts_begin_with_scores_and_pictures(self) -> None:
        _, experiment = store.connect("viewed")
        for state in saved(experiment).values():
            (section,) = state["compareRunSections"]
            charts = state["compareRunCharts"]
            assert {chart["metricSectionId"] for chart in charts} == {section["uuid"]}
            assert next(chart["metricKey"] for chart in charts if "metricKey" in chart) == "miou"
            assert [chart["imageKeys"] for chart in charts if "imageKeys" in chart] == [
                ["overlays"],
                ["confusion"],
            ]
            assert len({chart["uuid"] for chart in charts}) == len(charts)

    def test_of_an_older_version_are_replaced_and_views_of_a_user_stay(self) -> None:
        client, experiment = store.connect("outdated")
        now = dict(client.get_experiment(experiment).tags)
        client.set_experiment_tag(experiment, "mlflow.sharedViewState.scores", "older")
        client.set_experiment_tag(experiment, "mlflow.sharedViewState.mine", "my own")
        store.connect("outdated")
        assert client.get_experiment(experiment).tags["mlflow.sharedViewState.scores"] == "older"
        client.set_experiment_tag(experiment, views.VERSION, "older")
        store.connect("outdated")
        tags = client.get_experiment(experiment).tags
        assert tags == {**now, "mlflow.sharedViewState.mine": "my own"}

    def test_leave_out_the_runs_above_those_of_seeds(self) -> None:
        chosen = trained("filtered")
        client, experiment = store.connect("filtered")
        seeds.group(client, experiment, chosen, tables.results(chosen))
        assert len(client.search_runs([experiment])) == len(chosen) + 3
        found = client.search_runs([experiment], saved(experiment)["Scores"]["searchFilter"])
        assert {run.info.run_name for run in found} == {cell.name for cell in chosen}


def trained(dataset: str) -> list[Cell]:
    """Cells of two methods, an ablation and two seeds, and their teacher; each has a run."""
    chosen = Cell.all(axes(seeds=(0, 1), students=("resnet18",), ablate={"variants": ["b"]}), dataset)
    write(chosen, {"resnet18-kd-0": 0.5, "resnet18-kd-1": 0.75})
    for cell in chosen:
        train(cell)
    return chosen


def group(uri: str, chosen: list[Cell], start: float) -> None:
    """A separate process that groups the cells at a given time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        client, experiment = store.connect(chosen[0].dataset)
        found = tables.results(chosen)
        time.sleep(max(0, start - time.time()))
        seeds.group(client, experiment, chosen, found)


class TestSeeds:
    def check(self, chosen: list[Cell]) -> None:
        client, experiment = store.connect(chosen[0].dataset)
        parents = client.search_runs([experiment], "tags.stage = 'seeds'")
        names = ["resnet18-attnfd-b", "resnet18-kd", "resnet18-none"]
        assert sorted(parent.info.run_name for parent in parents) == names
        by_name = {parent.info.run_name: parent for parent in parents}
        assert by_name["resnet18-kd"].data.metrics["miou"] == pytest.approx(62.5)
        assert by_name["resnet18-none"].data.metrics["miou"] == pytest.approx(10)
        assert "variant" not in by_name["resnet18-kd"].data.tags
        assert by_name["resnet18-attnfd-b"].data.tags["variant"] == "b"
        expected = {f"{name}-{seed}": by_name[name].info.run_id for name in names for seed in (0, 1)}
        children = client.search_runs([experiment], "tags.stage != 'seeds'")
        found = {run.info.run_name: run.data.tags.get("mlflow.parentRunId") for run in children}
        assert found == {"teacher": None, **expected}

    def test_have_one_parent_with_their_means(self) -> None:
        chosen = trained("parents")
        client, experiment = store.connect("parents")
        for _ in range(2):
            seeds.group(client, experiment, chosen, tables.results(chosen))
        self.check(chosen)

    def test_one_seed_has_no_parent(self) -> None:
        chosen = Cell.all(axes(seeds=(0,), students=("resnet18",)), "single")
        write(chosen, {})
        client, experiment = store.connect("single")
        seeds.group(client, experiment, chosen, tables.results(chosen))
        assert client.search_runs([experiment], "tags.stage = 'seeds'") == []

    def test_two_processes_make_no_parent_twice(self) -> None:
        chosen = trained("raced")
        given = (store.address(), chosen, time.time() + 8)
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=group, args=given) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0]
        self.check(chosen)


def test_ui_prints_a_page_of_its_server_that_has_the_newest_runs_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    write(Cell.all(axes(students=("resnet18",)), "first"), {})
    train(Cell.teacher("first"))
    _, experiment = store.connect("second")
    assert ui.page() == views.page(store.connect("first")[1])
    write(Cell.all(axes(students=("resnet18",)), "second"), {})
    train(Cell.teacher("second"))
    port = servers.free_port()
    command = [sys.executable, "-m", "attnfd", "ui", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    environment = {"MLFLOW_TRACKING_URI": "", "PYTHONPATH": str(Path(runs.__file__).parents[2])}
    with servers.serving(command, f"{address}/health", tmp_path, **environment):
        until = time.monotonic() + servers.SECONDS
        said = r"MLflow, the best model first: (\S+)\n"
        while not (line := re.search(said, (tmp_path / "server.log").read_text())):
            assert time.monotonic() < until
            time.sleep(0.2)
        expected = f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey=scores"
        assert line[1] == f"{address}/{expected}"
        asked = f"{address}/api/2.0/mlflow/experiments/get?experiment_id={experiment}"
        with urllib.request.urlopen(asked, timeout=60) as answer:
            served = json.load(answer)["experiment"]
        assert served["name"] == "second"
        assert "mlflow.sharedViewState.scores" in {tag["key"] for tag in served["tags"]}
        with urllib.request.urlopen(line[1], timeout=60) as answer:
            assert b"<title>MLflow</title>" in answer.read()
        taken = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={**miniature.environment(), **environment},
            check=False,
        )
        assert taken.returncode == 2
        assert f"--port {port}: another program uses it; run `attnfd ui --port " in taken.stderr
