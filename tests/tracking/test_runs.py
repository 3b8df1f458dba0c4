"""Runs of models. Every test has its own cell."""

import hashlib
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pytest
import torch

from attnfd import paths
from attnfd.config.network import Attention
from attnfd.data.prepared import Card, Split
from attnfd.errors import StoppedError, UserError
from attnfd.evaluation.inference import ClassMap
from attnfd.models import checkpoint
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.paths import Cell
from attnfd.results.write import Evaluated
from attnfd.tracking import keys, runs
from attnfd.tracking import store as tracking_store
from attnfd.training.checkpoints import Checkpoints
from tests.tracking.conftest import FRESH, PASSWORD

mlflow = tracking_store.library()

SEEDS = itertools.count()


@pytest.fixture
def cell() -> Cell:
    """A cell that no other test uses, with the files of its training."""
    cell = Cell(stage="distill", dataset="toy", student="r18", method="kd", seed=next(SEEDS))
    write_outs(cell)
    return cell


def write_outs(cell: Cell) -> None:
    cell.model.mkdir(parents=True)
    write_card(cell.dataset)
    (cell.model / "model.safetensors").write_bytes(b"weights")
    (cell.model / "card.json").write_text("{}")
    history = pd.DataFrame({"epoch": [1, 2], "loss": [2.5, 1.5], "miou": [None, 0.25]})
    history.to_csv(cell.model / "history.csv", index=False)


def write_card(dataset: str) -> Card:
    """The card of a dataset with two splits, as `prepare` writes it."""
    pixels = {"sky": 30, "a.b": 10}
    splits = {
        name: Split(images=images, height=(4, 4), width=(5, 5), void=20 * images - 40, pixels=pixels)
        for name, images in (("train", 3), ("val", 2))
    }
    card = Card(
        name=dataset, reader="folder", classes=tuple(pixels), palette=((0, 0, 0), (1, 1, 1)), void=255,
        labels={0: 0, 1: 1}, splits=splits, sha256="0" * 64,
    )  # fmt: skip
    folder = paths.prepared(dataset)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / paths.CARD).write_text(card.model_dump_json())
    return card


def train(cell: Cell) -> str:
    """Track a training of the cell as its stage does, and return the run's id."""
    with runs.open_run(
        cell, {"distill": {"lr": 0.5, "crop": [64, 32]}, "method": {"on": None}}, FRESH
    ) as run:
        run.metrics({"step/loss": 3.0}, step=1)
        run.trained(checkpoint.fingerprint(cell.model))
    return run.id


def read(run_id: str) -> SimpleNamespace:
    found = mlflow.MlflowClient().get_run(run_id)
    data = found.data
    return SimpleNamespace(status=found.info.status, tags=data.tags, params=data.params, metrics=data.metrics)


def curve(run_id: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in mlflow.MlflowClient().get_metric_history(run_id, name)]


class TestRun:
    def test_says_which_cell_it_is_and_how_it_was_made(
        self, cell: Cell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for command in ("init -q", "-c user.name=a -c user.email=a@b commit -q --allow-empty -m first"):
            subprocess.run(["git", *command.split()], check=True)
        monkeypatch.setenv("DVC_EXP_NAME", "wide-cat")
        run_id = train(cell)
        client = mlflow.MlflowClient()
        found = client.get_run(run_id)

        assert found.info.run_name == f"r18-kd-{cell.seed}"
        assert client.get_experiment(found.info.experiment_id).name == "toy"
        head = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
        expected = {
            "stage": "distill",
            "dataset": "toy",
            "student": "r18",
            "method": "kd",
            "seed": str(cell.seed),
            "dvc_experiment": "wide-cat",
            "mlflow.source.git.commit": head,
            "attnfd.model": hashlib.sha256(b"weights").hexdigest()[:12],
        }
        assert expected.items() <= found.data.tags.items()
        assert found.data.params == {"distill.lr": "0.5", "distill.crop": "[64, 32]", "method.on": "null"}

    def test_says_what_it_was_trained_on(self, cell: Cell) -> None:
        with runs.open_run(cell, {}, FRESH) as run:
            run.data(write_card(cell.dataset))
        found = {name: value for name, value in read(run.id).metrics.items() if name.startswith("data/")}
        numbers = {name: value for name, value in found.items() if not name.endswith("b")}
        assert numbers == {
            "data/train/images": 3, "data/train/void": 20, "data/train/pixels/sky": 30,
            "data/val/images": 2, "data/val/void": 0, "data/val/pixels/sky": 30,
        }  # fmt: skip
        assert sorted(value for name, value in found.items() if name.endswith("b")) == [10, 10]

    def test_is_resumed_with_what_it_had(self, cell: Cell) -> None:
        run_id = train(cell)
        with runs.resume_run(cell, {"other": 1}) as run:
            run.metrics({"val/pixel_accuracy": 0.5}, step=0)
        assert run.id == run_id
        assert curve(run_id, "step/loss") == [(1, 3.0)]
        assert curve(run_id, "val/pixel_accuracy") == [(0, 50)]
        assert read(run_id).status == "FINISHED"

    def test_newest_of_the_same_model_is_resumed(self, cell: Cell) -> None:
        older, newer = train(cell), train(cell)
        with runs.resume_run(cell, {}) as run:
            assert run.id == newer != older

    def test_is_made_anew_with_the_curves_if_the_store_lacks_the_model(self, cell: Cell) -> None:
        other = train(cell)
        (cell.model / "model.safetensors").write_bytes(b"weights of a colleague")
        with runs.resume_run(cell, {"lr": 1}) as run:
            assert run.id != other
        assert curve(run.id, "epoch/loss") == [(1, 2.5), (2, 1.5)]
        assert curve(run.id, "epoch/miou") == [(2, 25)]
        assert curve(run.id, "data/train/images") == [(0, 3)]
        assert read(run.id).params == {"lr": "1"}
        with runs.resume_run(cell, {}) as again:
            assert again.id == run.id

    @pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (ValueError, "FAILED")])
    def test_broken_off_ends_as_such_and_keeps_its_metrics(
        self, cell: Cell, error: type[BaseException], status: str
    ) -> None:
        with pytest.raises(error):
            self.break_off(cell, error)
        (found,) = mlflow.search_runs(
            search_all_experiments=True, filter_string=f"tags.seed = '{cell.seed}'", output_format="list"
        )
        assert found.info.status == status
        assert "attnfd.model" not in found.data.tags
        assert curve(found.info.run_id, "step/loss") == [(1, 3.0)]

    def break_off(self, cell: Cell, error: type[BaseException]) -> None:
        with runs.open_run(cell, {}, FRESH) as run:
            run.metrics({"step/loss": 3.0}, step=1)
            raise error

    def test_left_open_by_a_dead_process_is_closed_by_the_next_training(self, cell: Cell) -> None:
        client = mlflow.MlflowClient()
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        owners = {"dead": dead.pid, "alive": os.getppid()}
        left = {}
        for owner, pid in owners.items():
            left[owner] = train(cell)
            client.set_tag(left[owner], "attnfd.process", f"{socket.gethostname()} {pid}")
            client.update_run(left[owner], status="RUNNING")
        train(cell)
        assert read(left["dead"]).status == "KILLED"
        assert read(left["alive"]).status == "RUNNING"

    def test_takes_any_class_name_for_a_metric(self, cell: Cell) -> None:
        with runs.open_run(cell, {}, FRESH) as run:
            run.metrics({"step/sky (blue), day": 0.5}, step=0)
        assert curve(run.id, "step/sky _x28_blue_x29__x2c_ day") == [(0, 0.5)]

    def test_keeps_all_scores_and_settings_whatever_the_classes_are_called(
        self, cell: Cell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        names = ["bicycle, bike", "misc.", "car (old)", "car [old]", "a/..", "trees/", "R&D", "100 %", "Sky"]
        monkeypatch.setattr(checkpoint, "load", lambda folder: (None, {}))
        monkeypatch.setattr(runs, "log_model", lambda *given: None)
        cell.results.mkdir(parents=True)
        iou = {name: number / 16 for number, name in enumerate(names)}
        averages = dict.fromkeys(("miou", "mean_accuracy", "pixel_accuracy"), 0.5)
        scores = {**averages, "split": "val", "val": averages, "parameters": 9, "images": 4, "iou": iou}
        images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
        classes = {name: number for number, name in enumerate(names)}
        with runs.open_run(cell, {"prepare": {"classes": classes}}, FRESH) as run:
            run.evaluated(Evaluated(scores, ["a", "b"], images))
            run.trained("0" * 64)
        found = read(run.id)
        scored = {keys.decode(key, "/"): value for key, value in found.metrics.items() if "iou/" in key}
        assert scored == {("val", "iou", name): 100 * value for name, value in iou.items()}
        assert {keys.decode(key, ".")[-1]: int(value) for key, value in found.params.items()} == classes
        assert found.metrics["miou"] == 50
        assert found.tags["attnfd.model"] == "0" * 12
        assert not caplog.records

    def test_watches_the_machine(self, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
        with runs.open_run(cell, {}, FRESH) as run:
            time.sleep(0.5)
        found = read(run.id).metrics
        assert 0 <= found["system/cpu_utilization_percentage"] <= 100
        assert found["system/system_memory_usage_megabytes"] > 0


def test_evaluated_model_predicts_images_of_any_size(cell: Cell) -> None:
    torch.manual_seed(0)
    network = DeepLabV3Plus("mobilenetv2", classes=3)
    with torch.no_grad():  # random BN statistics, so that the classes vary over an image
        for _ in range(5):
            network(torch.randn(2, 3, 64, 64))
    checkpoint.save(cell.model, network.eval(), {})
    cell.results.mkdir(parents=True)
    (cell.results / "per_class.csv").write_text("class,iou\n")
    (cell.results / "weights.safetensors").write_bytes(b"")
    images = torch.randint(0, 256, (1, 3, 72, 80), dtype=torch.uint8)
    metrics = {
        "miou": 0.5, "mean_accuracy": 0.625, "pixel_accuracy": 0.875, "parameters": 5_812_345, "images": 4,
        "iou": {"sky": 0.75, "sea": float("nan"), "sand": 0.25}, "collapsed": ["sea"], "split": "val",
        "val": {"miou": 0.5},
    }  # fmt: skip
    with runs.open_run(cell, {}, FRESH) as run:
        run.evaluated(Evaluated(metrics, ["a"], images))

    values = {name: value for name, value in read(run.id).metrics.items() if not name.startswith("system/")}
    assert values == {
        "miou": 50, "mean_accuracy": 62.5, "val/pixel_accuracy": 87.5, "val/iou/sky": 75,
        "val/iou/sand": 25, "model/parameters": 5_812_345, "data/val_images": 4,
    }  # fmt: skip
    note = read(run.id).tags["mlflow.note.content"]
    assert f"**r18**, trained by **kd** on **toy**, seed {cell.seed}." in note
    for words in (
        "mIoU **50.00**, mean class accuracy 62.50, pixel accuracy 87.50",
        "best class sky (75.00), worst sand (25.00)",
        "4 validation images",
        "5.8 M parameters",
    ):
        assert words in note
    files = mlflow.MlflowClient().list_artifacts(run.id, "evaluation")
    assert [file.path for file in files] == ["evaluation/per_class.csv"]

    uri = f"runs:/{run.id}/{cell.name}"
    served = mlflow.pyfunc.load_model(uri)
    loaded = served.get_raw_model()
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for size in ((3, 33, 97), (1, 129, 50)):
        batch = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        normal = torch.from_numpy(((batch / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
        with torch.no_grad():
            scores = network(normal).logits
            given = loaded(torch.from_numpy(batch))
        best = scores.topk(2, dim=1)
        # Except for ties, which rounding decides.
        sure = (best.values[:, 0] - best.values[:, 1]).numpy() > 1e-4
        assert sure.mean() > 0.9
        assert len(np.unique(best.indices[:, 0])) > 1
        for found in (given.numpy(), served.predict(batch)):
            assert found.shape == size
            np.testing.assert_array_equal(found[sure], best.indices[:, 0].numpy()[sure])


WITHOUT_THIS_PACKAGE = """
import sys
sys.modules["attnfd"] = None
import mlflow
import numpy as np
uri, out = sys.argv[1:]
model = mlflow.pyfunc.load_model(uri)
np.save(out, model.predict(np.arange(40 * 50 * 3, dtype=np.uint8).reshape(1, 40, 50, 3)))
"""


def test_a_logged_model_runs_without_this_package_and_shares_its_weights(cell: Cell) -> None:
    torch.manual_seed(0)
    network = DeepLabV3Plus("mobilenetv2", classes=3, attention=Attention()).eval()
    checkpoint.save(cell.model, network, {})
    with runs.open_run(cell, {}, FRESH) as run:
        run.model(np.zeros((1, 20, 20, 3), dtype=np.uint8))

    (logged,) = mlflow.search_logged_models(
        [mlflow.get_run(run.id).info.experiment_id], f"source_run_id = '{run.id}'", output_format="list"
    )
    location = Path(unquote(urlsplit(logged.artifact_location).path))
    assert (location / "data/network/model.safetensors").samefile(cell.model / "model.safetensors")
    command = [sys.executable, "-c", WITHOUT_THIS_PACKAGE, f"runs:/{run.id}/{cell.name}", "answer.npy"]
    subprocess.run(command, check=True, env={**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()})
    image = torch.arange(40 * 50 * 3).to(torch.uint8).reshape(1, 40, 50, 3)
    with torch.no_grad():
        expected = ClassMap(network)(image).numpy()
    np.testing.assert_array_equal(np.load("answer.npy"), expected)
    assert mlflow.pyfunc.load_model(str(location)).metadata.model_size_bytes > 23e6  # 5.8 M parameters


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_processes_that_start_at_once_share_one_store_at_the_main_root(count: int, tmp_path: Path) -> None:
    root = tmp_path / "main root"
    root.mkdir()
    processes = []
    for seed in range(count):
        clone = tmp_path / f"clone{seed}"
        clone.mkdir()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment |= {"DVC_ROOT": str(root), "PYTHONPATH": str(Path(runs.__file__).parents[2])}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", IN_A_CLONE, str(seed)],
                cwd=clone,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=300) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert (process.returncode, errors) == (0, "")
    for output, _ in outputs:
        found = json.loads(output)
        assert found["uri"] == f"sqlite:///{root}/mlflow.db"
        assert found["runs"] >= 1
        folder = Path(unquote(urlsplit(found["folder"]).path))
        assert folder.is_relative_to(root / "mlruns")
        assert (folder / "training" / "history.csv").read_text() == "curves"
    assert sorted(path.name for path in root.iterdir()) == ["mlflow.db", "mlflow.db.lock", "mlruns"]
    for seed in range(count):
        assert [path.name for path in (tmp_path / f"clone{seed}").iterdir()] == ["models"]


IN_A_CLONE = """
import json, sys
from pathlib import Path
from attnfd.paths import Cell
from attnfd.training.checkpoints import Checkpoints
from attnfd.tracking import keys, runs
cell = Cell(stage="distill", dataset="toy", student="r18", method="kd", seed=int(sys.argv[1]))
cell.model.mkdir(parents=True)
(cell.model / "history.csv").write_text("curves")
(cell.model / "card.json").write_text("{}")
with runs.open_run(cell, {}, Checkpoints(Path("none"))) as run:
    run.trained("0" * 64)
import mlflow
client = mlflow.MlflowClient()
experiment = client.get_experiment_by_name("toy").experiment_id
folder = client.get_run(run.id).info.artifact_uri
found = {"uri": mlflow.get_tracking_uri(), "runs": len(client.search_runs([experiment])), "folder": folder}
print(json.dumps(found))
"""


class TestStoppedTraining:
    def stopped(self, cell: Cell, checkpoints: Checkpoints) -> str:
        with pytest.raises(StoppedError), runs.open_run(cell, {}, checkpoints) as run:  # noqa: PT012
            for step in (1, 2, 3):
                run.metrics({"step/loss": step}, step)
            checkpoints.save({}, 2)
            raise StoppedError("stopped", signal.SIGTERM)
        return run.id

    def test_resumes_in_its_run_without_gap_or_repetition(self, cell: Cell, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "inputs")
        begun = self.stopped(cell, checkpoints)
        client = mlflow.MlflowClient()
        assert client.get_run(begun).info.status == "KILLED"
        with runs.open_run(cell, {}, checkpoints) as run:
            assert run.id == begun
            for step in (3, 4):
                run.metrics({"step/loss": step}, step)
        assert client.get_run(begun).info.status == "FINISHED"
        history = client.get_metric_history(begun, "step/loss")
        assert [(found.step, found.value) for found in history] == [(1, 1), (2, 2), (3, 3), (4, 4)]

    def test_other_inputs_or_no_checkpoint_begin_another_run(self, cell: Cell, tmp_path: Path) -> None:
        checkpoints, others = Checkpoints(tmp_path / "inputs"), Checkpoints(tmp_path / "others")
        begun = self.stopped(cell, checkpoints)
        others.save({}, 1)
        with runs.open_run(cell, {}, others) as run:
            assert run.id != begun
        checkpoints.clear()
        with runs.open_run(cell, {}, checkpoints) as run:
            assert run.id != begun


class TestStoreOutOfReach:
    @pytest.mark.parametrize("scheme", ["http", "postgresql"])
    def test_stops_a_training_before_it_starts(
        self, scheme: str, cell: Cell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.check(cell, f"{scheme}://", f"127.0.0.1:{port}", monkeypatch)

    def test_server_that_never_answers_is_not_waited_for(
        self, cell: Cell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.check(cell, "http://", f"127.0.0.1:{server.getsockname()[1]}", monkeypatch)

    def check(self, cell: Cell, scheme: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}me:{PASSWORD}@{host}")
        start = time.monotonic()
        with pytest.raises(UserError) as error:
            train(cell)
        assert time.monotonic() - start < 10
        assert "\n" not in str(error.value)
        assert f"{scheme}{host}" in str(error.value)
        assert PASSWORD not in str(error.value)

    def test_file_that_is_no_database_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "notes.txt").write_text("not a database, only some text" * 10)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///notes.txt")
        with pytest.raises(UserError, match=r"notes\.txt: file is not a database"):
            tracking_store.check()

    def test_deleted_experiment_says_how_to_restore_it(self, cell: Cell) -> None:
        gone = Cell(stage="distill", dataset="gone", student="r18", method="kd", seed=0)
        write_outs(gone)
        client = mlflow.MlflowClient()
        number = client.get_run(train(gone)).info.experiment_id
        client.delete_experiment(number)
        with pytest.raises(UserError, match=f"'gone'.*restore --experiment-id {number}"):
            train(gone)


@contextmanager
def serving(port: int) -> Iterator[int]:
    """MLflow's own server with the store of this file."""
    from mlflow.server import app
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestServerLost:
    @pytest.fixture(autouse=True)
    def server(
        self, store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Callable[[], None]]:
        """Let tracking use a server; a call of the result stops the server."""
        settings = {"FILE_STORE": store, "ARTIFACT_ROOT": "mlflow-artifacts:/", "SERVE_ARTIFACTS": "true"}
        for key, value in (settings | {"ARTIFACT_DESTINATION": str(tmp_path / "files")}).items():
            monkeypatch.setenv(f"_MLFLOW_SERVER_{key}", value)
        monkeypatch.setattr(runs, "FLUSH_SECONDS", 0)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        with ExitStack() as running:
            self.port = running.enter_context(serving(0))
            # At its first request, a server sets the tracking URI of its process (here ours) to its store.
            mlflow.MlflowClient(f"http://127.0.0.1:{self.port}").search_experiments()
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{PASSWORD}@127.0.0.1:{self.port}")
            yield running.close

    def test_training_continues_and_one_line_says_what_was_lost(
        self, server: Callable[[], None], cell: Cell, caplog: pytest.LogCaptureFixture
    ) -> None:
        with runs.open_run(cell, {}, FRESH) as run:
            run.metrics({"step/loss": 3.0}, step=0)
            server()
            start = time.monotonic()
            for step in range(1, 2001):
                run.metrics({"step/loss": 3.0, "step/ce": 2.0}, step)
            run.trained("0" * 64)
        assert time.monotonic() - start < 5
        (record,) = [record for record in caplog.records if record.name == "attnfd.tracking.runs"]
        line = record.getMessage()
        assert "\n" not in line
        for lost in ("4000 × metric value", "2 × file", "1 × end of the run"):
            assert lost in line
        assert f"http://127.0.0.1:{self.port}" in line
        assert "evaluate the model to log it again" in line
        assert PASSWORD not in caplog.text

    def test_run_with_gaps_is_not_resumed(
        self, server: Callable[[], None], cell: Cell, store: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with runs.open_run(cell, {}, FRESH) as run:
            server()
            run.trained(checkpoint.fingerprint(cell.model))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
        with runs.resume_run(cell, {}) as anew:
            assert anew.id != run.id

    def test_metrics_wait_for_the_server_to_come_back(
        self, server: Callable[[], None], cell: Cell, caplog: pytest.LogCaptureFixture
    ) -> None:
        again = ExitStack()
        with runs.open_run(cell, {}, FRESH) as run:
            server()
            for step in range(1500):
                run.metrics({"step/loss": float(step)}, step)
            again.enter_context(serving(self.port))
        with again:
            assert curve(run.id, "step/loss") == [(step, float(step)) for step in range(1500)]
            assert read(run.id).status == "FINISHED"
        assert not [record for record in caplog.records if record.name == "attnfd.tracking.runs"]

    def test_files_of_the_end_do_not_miss_a_server_that_is_back(
        self, server: Callable[[], None], cell: Cell, caplog: pytest.LogCaptureFixture
    ) -> None:
        again = ExitStack()
        with runs.open_run(cell, {}, FRESH) as run:
            server()
            run.metrics({"step/loss": 1.0}, 1)  # From here on nothing is sent to the store.
            again.enter_context(serving(self.port))
            run.trained(checkpoint.fingerprint(cell.model))
        with again, runs.resume_run(cell, {}) as resumed:
            assert resumed.id == run.id
        assert not [record for record in caplog.records if record.name == "attnfd.tracking.runs"]
