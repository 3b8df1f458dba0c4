"""The miniature pipeline: its outputs, and the cells that a change makes stale."""

import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import psutil
import pytest
from ruamel.yaml import YAML

from tests import miniature

CELLS = {
    "prepare@shapes",
    "train_teacher@shapes",
    "evaluate_teacher@shapes",
    "freeze@shapes",
    "trials@shapes",
    "distill@shapes-mobilenetv2-none-0",
    "distill@shapes-mobilenetv2-attnfd-0",
    "evaluate@shapes-mobilenetv2-none-0",
    "evaluate@shapes-mobilenetv2-attnfd-0",
    "ablate@shapes-mobilenetv2-b-0",
    "report@shapes",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which `dvc repro` has finished and dvc.lock is committed."""
    folder = miniature.clone(tmp_path_factory.mktemp("finished"))
    done = miniature.run(folder, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cell 7 of 11 · distill shapes mobilenetv2 attnfd, seed 0" in done.stdout
    assert re.search("shapes mobilenetv2-attnfd-b-0: mIoU [0-9.]+\n", done.stdout)
    miniature.commit(folder, "finished")
    return folder


@pytest.fixture
def project(finished: Path) -> Iterator[Path]:
    """The finished clone, which a test may change: the files that git tracks are restored afterwards."""
    yield finished
    for command in (("checkout", "--quiet", "."), ("clean", "--quiet", "-d", "--force", "-x", "--", ".env")):
        assert miniature.run(finished, "git", *command).returncode == 0


def changed(folder: Path) -> set[str]:
    """Cells that DVC reports as changed because of their own files and params."""
    status = miniature.run(folder, "dvc", "status", "--json")
    assert status.returncode == 0, status.stderr
    return set(json.loads(status.stdout))


def stale(folder: Path) -> set[str]:
    """Cells that `dvc repro` would run: the changed ones and all that depend on them."""
    graph = miniature.run(folder, "dvc", "dag", "--dot")
    assert graph.returncode == 0, graph.stderr
    following = re.findall(r'"(.+?)" -> "(.+?)"', graph.stdout)
    found: set[str] = set()
    todo = changed(folder)
    while todo:
        found |= todo
        todo = {cell for before, cell in following if before in todo} - found
    return found


def lock(folder: Path) -> dict[str, Any]:
    return YAML(typ="safe").load((folder / "dvc.lock").read_text())["stages"]


def test_every_cell_ran_and_nothing_is_stale(finished: Path) -> None:
    assert set(lock(finished)) == CELLS
    assert stale(finished) == set()


def test_outs_contain_what_a_user_looks_for(finished: Path) -> None:
    results = finished / "results/shapes/mobilenetv2/attnfd/0"
    pictures = [f"{name}.png" for name in ("confusion", "overlays", "attention", "curves")]
    for name in ("metrics.json", "per_class.csv", *pictures):
        assert (results / name).stat().st_size > 0
    report = finished / "reports/shapes"
    for name in ("report.md", "tables/comparison.csv", "tables/ablation.csv", "figures/curves.svg"):
        assert (report / name).stat().st_size > 0
    card = json.loads((finished / "models/shapes/frozen/card.json").read_text())
    source = json.loads((finished / "models/shapes/teacher/card.json").read_text())
    assert card["source_sha256"] == source["sha256"]
    assert card["val_miou"] == source["val_miou"]


def test_weights_are_on_the_disk_once(finished: Path) -> None:
    large = [file for file in finished.rglob("*") if file.is_file() and file.stat().st_size > 10**6]
    digests = {file: hashlib.sha256(file.read_bytes()).digest() for file in large}
    weights = {digest for file, digest in digests.items() if file.suffix == ".safetensors"}
    files = [file for file, digest in digests.items() if digest in weights]
    assert len({file.stat().st_ino for file in files}) == len(weights)


@pytest.mark.slow
def test_a_second_clone_writes_the_same_lock(finished: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    assert miniature.run(tmp_path, "git", "clone", "--quiet", str(finished), str(second)).returncode == 0
    (second / "dvc.lock").unlink()
    assert miniature.run(second, "dvc", "repro").returncode == 0
    assert (second / "dvc.lock").read_bytes() == (finished / "dvc.lock").read_bytes()


METHODS = {"trials@shapes", "report@shapes"}
"""What a change of any method's settings may concern; trials whose file comes out the same stop it there."""
ATTNFD = METHODS | {
    "distill@shapes-mobilenetv2-attnfd-0",
    "evaluate@shapes-mobilenetv2-attnfd-0",
    "ablate@shapes-mobilenetv2-b-0",
    "report@shapes",
}
STUDENT = {cell for cell in CELLS if cell.startswith(("distill", "evaluate@", "ablate"))} | {"report@shapes"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"methods": {"attnfd": {"weight": 2}}}, ATTNFD),
        ({"methods": {"kd": {"weight": 2}}}, METHODS),
        ({"tune": {"share": 0.5}}, {"report@shapes"}),
        (
            {"run": {"tune": {"methods": ["kd"]}}},
            METHODS | {f"tune@shapes-mobilenetv2-kd-{factor}-0" for factor in ("0.1", "0.3", "1", "3", "10")},
        ),
        ({"students": {"mobilenetv2": {"dropout": [0.3, 0.1]}}}, STUDENT),
        ({"students": {"resnet18": {"dropout": [0.3, 0.1]}}}, set()),
        ({"recipes": {"shapes": {"distill": {"epochs": 3}}}}, STUDENT),
        ({"ablate": {"b": {"decay": 0.5}}}, {"ablate@shapes-mobilenetv2-b-0", "report@shapes"}),
        (
            {"run": {"seeds": [0, 1]}},
            {
                "distill@shapes-mobilenetv2-none-1",
                "distill@shapes-mobilenetv2-attnfd-1",
                "evaluate@shapes-mobilenetv2-none-1",
                "evaluate@shapes-mobilenetv2-attnfd-1",
                "report@shapes",
            },
        ),
        ({"report": {"title": "Another"}}, {"report@shapes"}),
    ],
    ids=[
        "weight",
        "unused method",
        "share",
        "tuned method",
        "student",
        "unused student",
        "epochs",
        "variant",
        "seed",
        "title",
    ],
)
def test_a_param_makes_stale_what_uses_it(project: Path, changes: dict, expected: set[str]) -> None:
    miniature.change(project, changes)
    assert stale(project) == expected


def edit(folder: Path, *files: str) -> None:
    for name in files:
        with (folder / name).open("a") as file:
            file.write("\n# a change\n")


@pytest.mark.slow
def test_a_weight_chosen_from_trials_makes_none_of_them_stale(project: Path, tmp_path: Path) -> None:
    project = shutil.copytree(project, tmp_path / "copy", symlinks=True)  # The test runs more cells in it.
    miniature.change(project, {"run": {"tune": {"methods": ["kd"]}}, "tune": {"factors": [0.3, 1]}})
    done = miniature.run(project, "dvc", "repro", "tune")
    assert done.returncode == 0, done.stderr
    cells = {f"tune@shapes-mobilenetv2-kd-{factor}-0" for factor in ("0.3", "1")}
    assert lock(project).keys() >= cells
    chosen = miniature.run(project, "python", "-m", "attnfd", "choose", "--dataset", "shapes")
    assert chosen.returncode == 0, chosen.stderr
    miniature.change(project, {"methods": {"kd": {"on": {"shapes": {"weight": 7, "epochs": 9}}}}})
    done = miniature.run(project, "dvc", "repro", "tune")
    assert set(re.findall(r"Running stage '(.+?)'", done.stdout)) == {"trials@shapes"}
    miniature.change(project, {"methods": {"kd": {"temperature": 2}}})
    done = miniature.run(project, "dvc", "repro", "tune")
    assert set(re.findall(r"Running stage '(.+?)'", done.stdout)) == {"trials@shapes", *cells}
    report = miniature.run(project, "dvc", "repro", "report")
    assert report.returncode == 0, report.stderr
    assert len(pd.read_csv(project / "reports/shapes/tables/tuning.csv")) == 2


def test_a_distillers_file_makes_stale_its_own_cells(project: Path) -> None:
    edit(project, "attnfd/distillers/attnfd.py")
    assert stale(project) == ATTNFD - {"trials@shapes"}
    edit(project, "attnfd/distillers/kd.py")
    assert stale(project) == ATTNFD - {"trials@shapes"}


def test_an_edit_of_one_method_leaves_the_others(project: Path) -> None:
    edit(project, "attnfd/distillers/none.py")
    own = {f"{stage}@shapes-mobilenetv2-none-0" for stage in ("distill", "evaluate")}
    assert changed(project) == own | {"report@shapes"}  # The report contains the title of every method.


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("attnfd/scan/files.py", {"prepare"}),
        ("attnfd/readers/voc.py", {"prepare"}),
        ("attnfd/teachers/imported.py", {"train_teacher"}),
        ("attnfd/results/cost.py", {"evaluate_teacher", "evaluate", "ablate"}),
        ("attnfd/report/page.py", {"report"}),
        ("attnfd/analysis/tables.py", {"report"}),
    ],
)
def test_an_edit_makes_stale_the_stages_that_import_the_file(
    project: Path, file: str, expected: set[str]
) -> None:
    edit(project, file)
    assert changed(project) == {cell for cell in CELLS if cell.partition("@")[0] in expected}


@pytest.mark.slow
def test_an_edit_of_scanner_or_importer_trains_no_student_again(project: Path, tmp_path: Path) -> None:
    project = shutil.copytree(project, tmp_path / "copy", symlinks=True)  # The test runs more cells in it.
    before = {name: lock(project)[name]["outs"] for name in CELLS}
    edit(project, "attnfd/scan/files.py", "attnfd/teachers/imported.py")
    done = miniature.run(project, "dvc", "repro", "distill")
    assert done.returncode == 0, done.stderr
    ran = set(re.findall(r"Running stage '(.+?)'", done.stdout))
    assert ran == {"prepare@shapes", "train_teacher@shapes"}
    assert {name: lock(project)[name]["outs"] for name in CELLS} == before
    assert not changed(project) & {cell for cell in CELLS if cell.startswith("distill")}


def test_a_machine_setting_makes_nothing_stale(project: Path) -> None:
    (project / ".env").write_text("ATTNFD_DEVICE=cpu\nATTNFD_WORKERS=1\n")
    assert stale(project) == set()


def test_another_dataset_and_back_recomputes_nothing(project: Path) -> None:
    recipes = YAML(typ="safe").load((project / "params.yaml").read_text())["recipes"]
    before = lock(project)
    miniature.change(project, {"recipes": {"other": recipes["shapes"]}, "run": {"datasets": ["other"]}})
    switched = miniature.run(project, "dvc", "repro", "prepare@other")
    assert switched.returncode == 0, switched.stderr
    miniature.change(project, {"run": {"datasets": ["shapes"]}})
    assert stale(project) == set()
    assert {name: lock(project)[name] for name in before} == before


def runs(folder: Path, name: str = "shapes") -> list[Any]:
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return client.search_runs([experiment.experiment_id])


def test_every_model_is_one_run_that_contains_everything(finished: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    found = {run.info.run_name: run for run in runs(finished)}
    students = {"mobilenetv2-none-0", "mobilenetv2-attnfd-0", "mobilenetv2-attnfd-b-0"}
    assert len(runs(finished)) == 4
    (report,) = runs(finished, "shapes-reports")
    assert report.data.metrics.keys() == {
        f"miou/{name}" for name in ("teacher", "mobilenetv2/none", "mobilenetv2/attnfd")
    }
    assert set(found) == {"teacher", *students}
    for name, run in found.items():
        assert run.info.status == "FINISHED"
        assert {
            "step/ce",
            "epoch/loss",
            "epoch/miou",
            "miou",
            "val/iou/background",
        } <= run.data.metrics.keys()
        section = "train_teacher" if name == "teacher" else "distill"
        assert run.data.params[f"{section}.momentum"] == "0.9"
        assert len(client.get_metric_history(run.info.run_id, "epoch/loss")) == 2
        pictures = {file.path for file in client.list_artifacts(run.info.run_id)}
        for picture in ("confusion", "overlays", "attention", "curves"):
            assert f"{picture}.png" in pictures
    logged = finished / "results/shapes/mobilenetv2/attnfd/0/metrics.json"
    student = found["mobilenetv2-attnfd-0"]
    assert student.data.metrics["miou"] == 100 * json.loads(logged.read_text())["miou"]
    assert "step/attnfd" in student.data.metrics


@pytest.mark.slow
def test_a_temporary_experiment_tracks_into_the_same_store(project: Path) -> None:
    before = {run.info.run_id for run in runs(project)}
    change = ("--set-param", "methods.attnfd.on.shapes.weight=2")
    done = miniature.run(project, "dvc", "exp", "run", "--temp", *change)
    assert done.returncode == 0, done.stderr
    new = [run for run in runs(project) if run.info.run_id not in before]
    assert {run.info.run_name for run in new} == {"mobilenetv2-attnfd-0", "mobilenetv2-attnfd-b-0"}
    assert all(run.data.params["method.weight"] in ("2", "2.0") for run in new)
    assert all("dvc_experiment" in run.data.tags for run in new)


@pytest.mark.slow
def test_two_runs_of_the_pipeline_at_once_leave_it_complete(project: Path) -> None:
    miniature.change(project, {"report": {"title": "Twice"}})
    both = [
        subprocess.Popen(
            ["dvc", "repro"], cwd=project, env=miniature.environment(), stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes
    for code, error in zip(codes, errors, strict=True):
        assert "Traceback" not in error
        assert code == 0 or re.search("is busy|[Uu]nable to acquire lock", error)
    assert stale(project) == set()
    assert (project / "reports/shapes/report.md").read_text().startswith("# Twice: shapes")


@pytest.mark.slow
def test_a_killed_loader_process_is_reported_in_a_line_and_the_training_resumes(project: Path) -> None:
    miniature.change(project, {"recipes": {"shapes": {"distill": {"epochs": 30, "validate_every": 30}}}})
    command = "python -m attnfd distill --dataset shapes --student mobilenetv2 --method attnfd --seed 1"
    environment = {**miniature.environment(), "ATTNFD_WORKERS": "1", "ATTNFD_CHECKPOINT_SECONDS": "0"}
    with subprocess.Popen(
        command.split(), cwd=project, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        kept = project / ".attnfd"
        while not list(kept.rglob("0*.pt")):
            assert process.poll() is None
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        next(child for child in children if child.name() == "pt_data_worker").kill()
        assert process.stderr is not None
        error = process.stderr.read()
    assert process.returncode == 2
    assert error.startswith("error: a data loader's process was killed; run the same command again")
    assert error.count("\n") == 1
    again = miniature.run(project, *command.split())
    assert again.returncode == 0, again.stderr
    history = pd.read_csv(project / "models/shapes/mobilenetv2/attnfd/1/history.csv")
    assert list(history["epoch"]) == list(range(1, 31))


@pytest.mark.parametrize("stage", ["distill", "evaluate"])
def test_a_stage_run_by_hand_leaves_the_cache_and_the_logged_models_as_they_are(
    project: Path, stage: str
) -> None:
    kept = [*(project / ".dvc/cache/files").rglob("*"), *(project / "mlruns").rglob("model.safetensors")]
    before = {file: file.read_bytes() for file in kept if file.is_file()}
    miniature.change(project, {"recipes": {"shapes": {"distill": {"lr": 0.02}, "evaluate": {"overlays": 1}}}})
    command = f"python -m attnfd {stage} --dataset shapes --student mobilenetv2 --method attnfd --seed 0"
    done = miniature.run(project, *command.split())
    assert done.returncode == 0, done.stderr
    assert changed(project) >= {f"{stage}@shapes-mobilenetv2-attnfd-0"}
    assert {file: file.read_bytes() for file in before} == before
