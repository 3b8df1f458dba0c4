"""The command line: fast help with examples; bad input is refused in one line before anything runs."""

import io
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console

from attnfd.cli import ending, main
from attnfd.models import backbones
from tests import miniature

COMMANDS = (
    "check", "prepare", "train_teacher", "evaluate_teacher", "freeze", "distill", "evaluate", "ablate",
    "report", "plan", "sweep", "compare", "predict", "export", "benchmark models",
    "benchmark training", "benchmark gpu", "ui", "data fetch", "data import",
)  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A miniature project as working directory, independent of the outer environment."""
    for key in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "ATTNFD_DEVICE", "ATTNFD_CAMVID_ROOT"):
        monkeypatch.delenv(key, raising=False)
    (tmp_path / "params.yaml").write_bytes((miniature.PROJECT / "params.yaml").read_bytes())
    miniature.change(tmp_path, {"run": miniature.RUN, "recipes": {"shapes": miniature.SHAPES}})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def status(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    """Run a command; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["attnfd", *words])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    return stopped.value.code


Refused = Callable[..., str]


@pytest.fixture
def refused(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must fail with status 2 and one message; returns the message."""

    def call(*arguments: str, changes: dict[str, Any] | None = None) -> str:
        if changes:
            miniature.change(project, changes)
        before = {path for path in project.rglob("*") if path.is_file()}
        monkeypatch.setattr(sys, "argv", ["attnfd", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        assert stopped.value.code == 2
        message = capsys.readouterr().err.strip()
        assert message.startswith("error: ")
        assert "Traceback" not in message
        assert {path for path in project.rglob("*") if path.is_file()} == before
        return message

    return call


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert status(monkeypatch, *command.split(), "--help") == 0
    assert f"Example: attnfd {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--version"], ["attnfd 0."]),
        (["plan", "-h"], ["Usage:", "--help"]),
        (["train-teacher", "-h"], ["Example: attnfd train_teacher"]),
        (["--help"], ["Stages", "Run", "Look", "Deploy", "Measure", "--install-completion"]),
    ],
)
def test_what_a_command_line_has(
    arguments: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert status(monkeypatch, *arguments) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in words)


def test_the_report_ends_with_scores_and_intervals() -> None:
    rows = [
        {"student": "teacher", "method": "", "miou": 0.567, "difference": None, "low": None, "high": None},
        {
            "student": "resnet18",
            "method": "none",
            "miou": 0.336,
            "difference": None,
            "low": None,
            "high": None,
        },
        {
            "student": "resnet18",
            "method": "kd",
            "miou": 0.3,
            "difference": -0.036,
            "low": -0.05,
            "high": 0.01,
        },
    ]
    console = Console(file=io.StringIO(), width=80)
    console.print(ending.scores(pd.DataFrame(rows)))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[1:] == ["teacher 56.7", "resnet18 none 33.6", "resnet18 kd 30.0 -3.6 [-5.0, 1.0]"]


def test_students_and_methods_come_in_pairs(refused: Refused) -> None:
    students = ["--student", "resnet18", "--student", "mobilenetv2"]
    printed = refused("distill", "--dataset", "shapes", *students, "--method", "kd", "--seed", "0")
    assert printed == "error: --method: found 1 for 2 students; allowed: one for each"
    printed = refused("ablate", "--dataset", "shapes", *students, "--variant", "b", "--seed", "0")
    assert printed == "error: --variant: found 1 for 2 students; allowed: one for each"


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'mlflow', 'pandas', 'numpy', 'matplotlib', 'dvc', 'ray'}"
    code = f"import sys, attnfd.cli.main; sys.exit(len({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_end_loses_nothing_and_does_not_look_for_what_to_collect() -> None:
    code = """if True:
        import atexit, runpy, sys, threading, time
        from attnfd.cli import main
        def late():
            time.sleep(0.3)
            print("thread")
        def command():
            threading.Thread(target=late).start()
            atexit.register(print, "handler")
            print("done")
            sys.exit(3)
        class Cycle:
            def __init__(self):
                self.itself = self
            def __del__(self):
                print("collected")
        cycle = Cycle()
        main.app = command
        runpy.run_module("attnfd", run_name="__main__")"""
    done = miniature.run(miniature.PROJECT, sys.executable, "-c", code)
    assert (done.returncode, done.stdout.split()) == (3, ["done", "thread", "handler"]), done.stderr


def test_the_real_command_fails_without_a_traceback(project: Path) -> None:
    miniature.change(project, {"training": {"epochz": 1}})
    done = subprocess.run(
        [sys.executable, "-m", "attnfd", "prepare", "--dataset", "shapes"],
        capture_output=True,
        text=True,
        check=False,
        env={**miniature.environment(), "PYTHONPATH": str(miniature.PROJECT)},
    )
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: params.yaml: training.epochz: unknown key; did you mean 'epochs'? allowed: "
        "splits, epochs, batch_size, lr, head_lr_factor, optimizer, momentum, nesterov, weight_decay, "
        "decay_all, warmup, clip_norm, accumulate, ema, schedule, crop, scale, scale_from, flip, jitter, "
        "blur, class_weights, hard_pixels, dice, sync_bn, precision, deterministic, validate_every"
    )


def test_check_accepts_the_miniature(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert status(monkeypatch, "check") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "all good" in printed
    for words in (
        "data of shapes drawn by prepare: 20 images (train 8, val 4, extra 8)",
        "weights none to load",
        f"torch {torch.__version__}",
        f"Python {platform.python_version()}",
        "precision auto: ",
        "mlflow.db, new",
        "GiB",
        "stale cells unknown: there is no dvc.yaml here",
    ):
        assert words in printed


def test_check_lists_every_problem_and_looks_at_the_data_first(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("TORCH_HOME", str(project.parent / "empty"))
    monkeypatch.setattr("torch.hub.download_url_to_file", downloads)
    miniature.change(project, {"run": {"datasets": ["cityscapes", "shapes"]}})
    assert status(monkeypatch, "check") == 2
    printed = capsys.readouterr()
    first, second = printed.err.strip().splitlines()
    assert first.startswith("error: ")
    assert "datasets/cityscapes" in first
    assert "ATTNFD_CITYSCAPES_ROOT" in first
    assert second.startswith("error: MLflow store http://127.0.0.1:1: ")
    rows = " ".join(printed.out.split())
    assert "data of cityscapes a problem" in rows
    assert "data of shapes drawn by prepare" in rows
    assert "all good" not in rows


def downloads(*args: object, **kwargs: object) -> None:
    raise AssertionError("downloads")


def test_check_downloads_no_weights_and_says_how_large_they_are(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(project.parent / "empty"))
    monkeypatch.setattr("torch.hub.download_url_to_file", downloads)
    miniature.change(project, {"recipes": {"shapes": {"training": {"weights": "imagenet"}}}})
    assert status(monkeypatch, "check") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "weights of mobilenetv2 imagenet: not on this disk yet, a download of 14 MB" in printed
    assert "weights of resnet18 imagenet: not on this disk yet, a download of 45 MB" in printed


def test_data_that_are_missing_come_before_weights(
    refused: Refused, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.hub.download_url_to_file", downloads)
    monkeypatch.setenv("TORCH_HOME", str(project.parent / "empty"))
    message = refused("prepare", "--dataset", "voc", changes={"run": {"datasets": ["voc"]}})
    assert "ATTNFD_VOC_ROOT" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": {"lr": "fast"}}, ("training.lr", '"fast"', "number")),
        ({"run": {"students": []}}, ("run.students", "at least 1")),
        ({"run": {"students": ["resnet81"]}}, ("run.students", "'resnet81'", "'resnet18'")),
        ({"run": {"methods": ["attfd"]}}, ("run.methods", "'attfd'", "'attnfd'")),
        ({"run": {"datasets": ["camvit"]}}, ("run.datasets", "'camvit'", "'camvid'")),
        ({"methods": {"attnfd": {"layers": ["neck"]}}}, ("methods.attnfd.layers.0", '"neck"', "'backbone'")),
        ({"methods": {"at": {"wait": 1}}}, ("methods.at.wait", "did you mean 'weight'")),
        ({"ablate": {"b": {"layers": []}}}, ("ablate.b.layers", "at least 1")),
        ({"recipes": {"shapes": {"prepare": {"trian": 3}}}}, ("recipes.shapes.prepare.trian", "'train'")),
        ({"students": {"mobilenetv2": {"backbone": "mobilenet"}}}, ("students.mobilenetv2.backbone",)),
        ({"train_teacher": {"backbone": "resnet110"}}, ("train_teacher.backbone", "'resnet110'")),
        (
            {"recipes": {"shapes": {"training": {"weights": "no/{backbone}.pth"}}}},
            ("no/mobilenetv2.pth", "no such file"),
        ),
    ],
)
def test_check_names_what_is_invalid(refused: Refused, changes: dict, words: tuple[str, ...]) -> None:
    message = refused("check", changes=changes)
    for word in words:
        assert word in message
    assert all(line.startswith("error: ") for line in message.splitlines())  # one line per problem


def test_weights_of_another_network(refused: Refused, project: Path) -> None:
    other = backbones.build("resnet18").state_dict()
    torch.save(other, project / "other.pth")
    message = refused(
        "check",
        changes={"recipes": {"shapes": {"training": {"weights": "other.pth"}, "train_teacher": {}}}},
    )
    assert "other.pth" in message
    assert "mobilenet_v2" in message


def test_imagenet_weights_without_a_network(
    refused: Refused, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(project.parent / "empty"))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    message = refused(
        "train_teacher",
        "--dataset",
        "shapes",
        changes={"recipes": {"shapes": {"training": {"weights": "imagenet"}}}},
    )
    assert "weights: none" in message
    assert "file" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNFD_DEVICE", "cuda")
    assert "ATTNFD_DEVICE: found 'cuda', but no GPU is visible" in refused("check")


def test_an_invalid_machine_setting(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNFD_DEVICE", "tpu")
    assert "ATTNFD_DEVICE: found 'tpu'" in refused("check")


def test_a_store_out_of_reach(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:1")
    message = refused("check")
    assert "MLflow store http://127.0.0.1:1" in message
    assert "secret" not in message


def test_a_dataset_to_fetch_that_nobody_publishes(refused: Refused) -> None:
    assert "unknown name 'cityscape'; did you mean 'cityscapes'?" in refused("data", "fetch", "cityscape")


def test_an_import_lists_its_formats_and_says_what_is_missing(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["attnfd", "data", "import"])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 0
    assert "labelme" in capsys.readouterr().out
    assert "found no --to; allowed: attnfd data import FORMAT PATH --to" in refused(
        "data", "import", "coco", "x"
    )
    assert "gone: not found" in refused("data", "import", "coco", "gone", "--to", "new")


def test_a_dataset_folder_that_is_not_there(refused: Refused) -> None:
    changes = {"recipes": {"camvid_small": {"training": {"weights": "none"}}}}
    message = refused("prepare", "--dataset", "camvid_small", changes=changes)
    assert "datasets/camvid" in message
    assert "ATTNFD_CAMVID_ROOT" in message


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("distill", "--student", "vgg", "--method", "none", "--seed", "0"), "vgg"),
        (("distill", "--student", "mobilenetv2", "--method", "magic", "--seed", "0"), "magic"),
        (("ablate", "--student", "mobilenetv2", "--variant", "xyz", "--seed", "0"), "xyz"),
        (("evaluate", "--student", "mobilenetv2", "--method", "none", "--seed", "0"), "model.safetensors"),
        (("freeze",), "card.json"),
        (("report",), "prepare@shapes"),
    ],
)
def test_a_stage_out_of_order_or_with_an_unknown_name(
    refused: Refused, arguments: tuple[str, ...], word: str
) -> None:
    command, *rest = arguments
    assert word in refused(command, "--dataset", "shapes", *rest)


def test_faulty_files_are_listed_and_nothing_is_written(
    refused: Refused, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project / "camvid"
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        Image.new("RGB", (8, 8), (200 if split == "val" else 10, 0, 0)).save(root / split / "a.png")
        Image.new("L", (8, 8)).save(root / split / "a_mask.png")
        (root / f"{split}.txt").write_text(f"{split}/a.png {split}/a_mask.png\n")
    (root / "train/a.png").write_bytes(b"no image")
    Image.new("L", (8, 8), 77).save(root / "val/a_mask.png")
    monkeypatch.setenv("ATTNFD_CAMVID_ROOT", str(root))
    message = refused("prepare", "--dataset", "camvid_small")
    assert "train/a.png" in message
    assert "val/a_mask.png" in message
    assert "77" in message
    assert not (project / "data" / "camvid_small").exists()


@pytest.mark.parametrize("broken", ["ConnectionResetError(104, 'Connection reset by peer')", "EOFError()"])
def test_a_broken_connection_to_a_loaders_process_is_reported_as_its_death(
    broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = str(Path(torch.utils.data.dataloader.__file__))
    names: dict[str, Any] = {}
    exec(compile(f"def app(): raise {broken}", where, "exec"), names)
    monkeypatch.setattr(main, "app", names["app"])
    with pytest.raises(SystemExit):
        main.main()
    assert "a loader's process was killed" in capsys.readouterr().err


def test_another_broken_connection_is_not_a_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> None:
        raise EOFError

    monkeypatch.setattr(main, "app", app)
    with pytest.raises(EOFError):
        main.main()


def test_a_library_that_no_active_recipe_needs_may_be_missing(
    project: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    # The recipe camvid_cpu has a backbone of timm, and is not active.
    assert status(monkeypatch, "prepare", "--dataset", "shapes") == 0
    miniature.change(project, {"students": {"mobilenetv2": {"backbone": "timm:mobilenetv3_small_100"}}})
    assert "timm: not installed" in refused("prepare", "--dataset", "shapes")
