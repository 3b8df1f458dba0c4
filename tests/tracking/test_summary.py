"""What a report logs to the store: a run with its files, costs, and registered students."""

import itertools
import json
import math
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from attnfd import paths
from attnfd.analysis import tables
from attnfd.cli import pipeline
from attnfd.config.schema import Run
from attnfd.deploy.benchmark import Cost, describe, trade_off
from attnfd.errors import UserError
from attnfd.paths import Cell
from attnfd.tracking import costs, registry, runs, store, summary
from tests.report import synthetic
from tests.tracking.conftest import FRESH

mlflow = store.library()
DATASETS = (f"tiny{number}" for number in itertools.count())
DATA = "d" * 64


def axes(**changed: Any) -> Run:
    return synthetic.params(**{"methods": ("none", "kd"), **changed}).run


@pytest.fixture
def dataset() -> str:
    """A dataset that no other test uses, with the files of a report."""
    name = next(DATASETS)
    folders = paths.prepared(name), paths.report(name) / "tables", paths.summary(name).parent
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    (folders[0] / paths.CARD).write_text(json.dumps({"sha256": DATA, "classes": ["sky", "sea"]}))
    (paths.report(name) / "report.md").write_text("# Report")
    (folders[1] / "comparison.csv").write_text("student,miou\n")
    means = {"teacher": {"miou": 75.0, "fw_iou": 0.5}, "resnet18": {"kd": {"miou": 62.5}}}
    paths.summary(name).write_text(json.dumps(means))
    return name


def write(chosen: list[Cell], mious: Mapping[str, float]) -> None:
    """Outs of the cells; mIoU is 0.1 if it is not given, and the weights are the cell's name."""
    for cell in chosen:
        synthetic.write(cell, mious.get(cell.name, 0.1))
        set_weights(cell, cell.name)


def set_weights(cell: Cell, sha256: str) -> None:
    (cell.model / paths.CARD).write_text(json.dumps({"sha256": sha256}))
    (cell.model / paths.MODEL).write_bytes(b"")


def train(cell: Cell, seconds: tuple[float, ...] = (), **peaks: float) -> str:
    """The run of a training with these seconds per step, one value per epoch, and of its model."""
    with runs.open_run(cell, {}, FRESH) as run:
        for epoch, value in enumerate(seconds, start=1):
            pace = {"speed/seconds_per_step": value, "speed/images_per_second": 8 / value}
            run.metrics(pace | {f"speed/{key}": peak for key, peak in peaks.items()}, epoch)
        if seconds:
            run.metrics({"speed/training_seconds": sum(seconds) * 10}, len(seconds))
        run.trained(json.loads((cell.model / paths.CARD).read_bytes())["sha256"])
    client = mlflow.MlflowClient()
    model = client.create_logged_model(client.get_run(run.id).info.experiment_id, "model", run.id)
    client.finalize_logged_model(model.model_id, "READY")
    return run.id


def reports(dataset: str) -> list[Any]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(f"{dataset}-reports").experiment_id
    return client.search_runs([experiment], "tags.stage = 'report'")


def versions(dataset: str) -> dict[str, Any]:
    """Versions of the registered model by alias."""
    client = mlflow.MlflowClient()
    aliases = client.get_registered_model(f"attnfd-{dataset}").aliases
    return {alias: client.get_model_version(f"attnfd-{dataset}", number) for alias, number in aliases.items()}


class TestReport:
    def test_is_a_run_with_its_files_and_means(self, dataset: str) -> None:
        write(Cell.all(axes(), dataset), {"teacher": 0.75, "resnet18-kd-0": 0.5})
        summary.publish(axes(), dataset)
        (run,) = reports(dataset)
        assert run.info.run_name == "report"
        assert run.info.status == "FINISHED"
        assert run.data.metrics == {"miou/teacher": 75, "miou/resnet18/kd": 62.5}
        note = run.data.tags["mlflow.note.content"]
        assert "- teacher: 75.00\n- resnet18: the best method is kd with 50.00" in note
        folder = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id))
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
        assert files == {"report.md", "tables/comparison.csv", "tables/costs.csv", "tables/costs.md"}
        assert (folder / "report.md").read_text() == "# Report"

    def test_unchanged_is_not_logged_again(self, dataset: str) -> None:
        write(Cell.all(axes(), dataset), {})
        summary.publish(axes(), dataset)
        summary.publish(axes(), dataset)
        assert len(reports(dataset)) == 1
        (paths.report(dataset) / "report.md").write_text("# Another")
        summary.publish(axes(), dataset)
        assert len(reports(dataset)) == 2

    def test_with_a_gap_is_logged_again(self, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
        write(Cell.all(axes(), dataset), {})
        with monkeypatch.context() as patch:
            patch.setattr(mlflow.MlflowClient, "log_artifacts", full)
            with pytest.raises(UserError, match="disk is full"):
                summary.publish(axes(), dataset)
        summary.publish(axes(), dataset)
        assert sorted(run.info.status for run in reports(dataset)) == ["FAILED", "FINISHED"]

    def test_survives_a_store_out_of_reach(
        self, dataset: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write(Cell.all(axes(), dataset), {})
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        start = time.monotonic()
        pipeline._publish(axes(), dataset)
        assert time.monotonic() - start < 10
        (line,) = capsys.readouterr().err.splitlines()
        again = f"run attnfd report --dataset {dataset}"
        for words in ("warning:", "is written, but not logged", f"127.0.0.1:{port}", again):
            assert words in line


def full(*_: object) -> None:
    raise OSError("disk is full")


class TestCosts:
    @pytest.fixture
    def table(self, dataset: str) -> Any:
        """Seed 0 of `none` was trained twice, seed 1 of `kd` elsewhere; the teacher's run has no costs."""
        chosen = Cell.all(axes(seeds=(0, 1), ablate={"variants": ["b"]}), dataset)
        write(chosen, {})
        by_name = {cell.name: cell for cell in chosen}
        train(by_name["teacher"])
        train(by_name["resnet18-none-0"], (7.0,), peak_memory_mib=9000)
        train(by_name["resnet18-none-0"], (9.0, 0.5, 1.0), peak_memory_mib=800)
        train(by_name["resnet18-none-1"], (3.0,), peak_memory_mib=900)
        train(by_name["resnet18-kd-0"], (5.0,), peak_memory_mib=1000)
        train(by_name["resnet18-attnfd-b-1"], (8.0,), peak_memory_mib=700)
        client, experiment = store.connect(dataset)
        return costs.table(costs.collect(client, experiment, chosen))

    def test_are_means_of_the_newest_runs(self, table: Any) -> None:
        rows = {(row["student"], row["method"], row["variant"]): row for row in table.to_dict("records")}
        none, kd = rows["resnet18", "none", ""], rows["resnet18", "kd", ""]
        # The medians over the epochs are 1 and 3; a step has 8 images.
        expected = {"seeds": 2, "runs": 2, "seconds_per_step": 2, "vs_none": 1, "peak_memory_mib": 900}
        expected |= {"images_per_second": (8 + 8 / 3) / 2, "training_seconds": (105 + 30) / 2}
        assert {key: none[key] for key in expected} == pytest.approx(expected)
        assert (kd["runs"], kd["seconds_per_step"], kd["vs_none"]) == (1, 5, 2.5)
        assert rows["resnet18", "attnfd", "b"]["vs_none"] == 4
        teacher = rows["teacher", "", ""]
        assert teacher["runs"] == 0
        assert math.isnan(teacher["seconds_per_step"])
        assert math.isnan(teacher["vs_none"])

    def test_say_what_is_not_known(self, table: Any) -> None:
        text = costs.markdown(table)
        assert "| teacher |  | – | – | – | – | – | 0 of 1 |" in text
        assert "| resnet18 | kd | 5000 | 2.50 | 1.6 | 1000 | 50 | 1 of 2 |" in text
        assert "| resnet18 | attnfd b | 8000 | 4.00 |" in text
        assert "GPU" not in text
        assert "no run for 3 of 7 trainings" in costs.gaps(table)
        table["runs"] = table["seeds"]
        assert costs.gaps(table) == ""

    def test_give_the_memory_of_a_gpu(self, table: Any) -> None:
        table["peak_device_memory_mib"] = 2048.0
        assert "| GPU, MiB |" in costs.markdown(table)


class TestBest:
    def found(self, **mious: float) -> Any:
        chosen = Cell.all(axes(seeds=(0, 1), students=("resnet18", "mobilenetv2")), "tiny")
        write(chosen, {name.replace("_", "-"): miou for name, miou in mious.items()})
        return registry.best(tables.results(chosen))

    def test_a_lucky_seed_does_not_decide(self) -> None:
        rows = self.found(
            resnet18_none_0=0.9, resnet18_none_1=0.3, resnet18_kd_0=0.65, resnet18_kd_1=0.7, teacher=0.99
        )
        assert list(rows["cell"]) == ["resnet18-kd-1", "mobilenetv2-none-0"]

    def test_the_best_student_comes_first(self) -> None:
        rows = self.found(resnet18_none_0=0.4, mobilenetv2_kd_1=0.8)
        assert list(rows["cell"]) == ["mobilenetv2-kd-1", "resnet18-none-0"]
        assert list(rows["mean"]) == pytest.approx([0.45, 0.25])

    def test_ablations_take_no_part(self) -> None:
        rows = self.found(resnet18_kd_0=0.5, resnet18_attnfd_b_0=0.9, resnet18_attnfd_b_1=0.9)
        assert rows["cell"].iloc[0] == "resnet18-kd-0"


class TestRegistry:
    @pytest.fixture
    def cells(self, dataset: str) -> dict[str, Cell]:
        chosen = Cell.all(axes(students=("resnet18", "mobilenet.v2")), dataset)
        write(chosen, {"resnet18-kd-0": 0.6, "mobilenet.v2-none-0": 0.5})
        return {cell.name: cell for cell in chosen}

    def publish(self, cells: Mapping[str, Cell]) -> dict[str, Any]:
        dataset = cells["teacher"].dataset
        client, experiment = store.connect(dataset)
        chosen = list(cells.values())
        registry.register(client, experiment, chosen, tables.results(chosen))
        return versions(dataset)

    def test_best_students_have_aliases_and_a_card(self, cells: dict[str, Cell]) -> None:
        run_id = train(cells["resnet18-kd-0"])
        small = train(cells["mobilenet.v2-none-0"])
        found = self.publish(cells)
        assert {alias: version.run_id for alias, version in found.items()} == {
            "best": run_id, "best-resnet18": run_id, "best-mobilenet_v2": small,
        }  # fmt: skip
        best = found["best"]
        tags = {
            "dataset": cells["teacher"].dataset, "student": "resnet18", "method": "kd", "seed": "0",
            "miou": "60.00", "attnfd.data": DATA[:12], "attnfd.weights": "resnet18-kd-0"[:12],
            "attnfd.commit": "unknown",
        }  # fmt: skip
        assert best.tags == tags
        first = "resnet18, trained by kd on {dataset}, seed 0: mIoU 60.00 %".format(**best.tags)
        assert best.description.splitlines()[0] == first
        for words in ("mIoU **60.00**", DATA, "resnet18-kd-0"):
            assert words in best.description
        model = mlflow.MlflowClient().get_registered_model(best.name)
        assert "Classes: 0 sky, 1 sea." in model.description

    def test_same_weights_stay_the_same_version(self, cells: dict[str, Cell]) -> None:
        for name in ("resnet18-kd-0", "mobilenet.v2-none-0"):
            train(cells[name])
        before = self.publish(cells)["best"].version
        assert self.publish(cells)["best"].version == before
        set_weights(cells["resnet18-kd-0"], "others")
        train(cells["resnet18-kd-0"])
        after = self.publish(cells)["best"].version
        assert after != before
        set_weights(cells["resnet18-kd-0"], "resnet18-kd-0")
        assert self.publish(cells)["best"].version == before
        client = mlflow.MlflowClient()
        assert len(client.search_model_versions(f"name = 'attnfd-{cells['teacher'].dataset}'")) == 3

    def test_a_model_without_a_run_is_left_out(
        self, cells: dict[str, Cell], caplog: pytest.LogCaptureFixture
    ) -> None:
        small = train(cells["mobilenet.v2-none-0"])
        found = self.publish(cells)
        assert {alias: version.run_id for alias, version in found.items()} == {"best-mobilenet_v2": small}
        (record,) = [record for record in caplog.records if record.name == "attnfd.tracking.registry"]
        dataset = cells["teacher"].dataset
        assert f"--single-item evaluate@{dataset}-resnet18-kd-0" in record.getMessage()

    def test_experiments_register_nothing(
        self, cells: dict[str, Cell], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train(cells["resnet18-kd-0"])
        monkeypatch.setenv("DVC_EXP_NAME", "wide-cat")
        dataset = cells["teacher"].dataset
        summary.publish(axes(students=("resnet18", "mobilenet.v2")), dataset)
        assert len(reports(dataset)) == 1
        with pytest.raises(mlflow.MlflowException, match="not found"):
            versions(dataset)


def test_a_benchmark_is_a_run_and_enters_the_next_report(dataset: str) -> None:
    write(Cell.all(axes(), dataset), {})
    summary.publish(axes(), dataset)
    cost = Cost("models:/a@best", "PyTorch", "cpu", 5, 7, 8.0, 9.0, 125.0, 0.5)
    content = describe([cost], size=(32, 48), batch=1, rounds=2)
    summary.log_benchmark(dataset, content, trade_off([cost]))
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(f"{dataset}-reports").experiment_id
    (run,) = client.search_runs([experiment], "tags.stage = 'benchmark'")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["p50_ms/models_x3a_/a_x40_best/PyTorch"] == 8
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id))
    assert json.loads((folder / "benchmark.json").read_text())["costs"][0]["p95_ms"] == 9
    with Image.open(folder / "miou-over-latency.png") as image:
        assert image.width > 100
    summary.publish(axes(), dataset)
    summary.publish(axes(), dataset)
    newest, before = reports(dataset)
    found = [
        {file.path for file in client.list_artifacts(one.info.run_id, "benchmark")}
        for one in (before, newest)
    ]
    assert found == [set(), {"benchmark/benchmark.json", "benchmark/miou-over-latency.png"}]
