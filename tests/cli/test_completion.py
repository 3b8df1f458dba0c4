"""Shell completion, by typer's own protocol, in a separate process."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import miniature

ASKED = """if True:
    import atexit, sys
    from attnfd.cli.main import main
    heavy = {"torch", "mlflow", "pandas", "numpy", "matplotlib", "dvc", "ray"}
    atexit.register(lambda: sys.stderr.write(" ".join(heavy & sys.modules.keys())))
    sys.argv[0] = "attnfd"
    main()"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_bytes((miniature.PROJECT / "params.yaml").read_bytes())
    for folder in ("teacher", "frozen", "resnet18/attnfd/0", "resnet18/attnfd/1"):
        write(tmp_path / "models/shapes" / folder / "model.safetensors")
        if folder != "frozen":
            write(tmp_path / "results/shapes" / folder / "metrics.json")
    write(tmp_path / "results/voc/resnet18/none/0/metrics.json")
    write(tmp_path / "ablation/shapes/mobilenetv2/be/0/model.safetensors")
    write(tmp_path / "ablation/shapes/mobilenetv2/be/0/metrics.json")
    return tmp_path


def write(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def complete(folder: Path, line: str) -> list[str]:
    """The completions that bash gets for the last word of a line."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        cwd=folder,
        env={
            **miniature.environment(),
            "PYTHONPATH": str(miniature.PROJECT),
            "_ATTNFD_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), "an error, or large imports"
    return done.stdout.split()


CELLS = ["shapes/resnet18/attnfd", "shapes/resnet18/attnfd/0", "shapes/resnet18/attnfd/1"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("attnfd dist", ["distill"]),
        ("attnfd prepare --dataset ca", ["camvid", "camvid_cpu", "camvid_small"]),
        ("attnfd distill --dataset shapes --student mob", ["mobilenetv2", "mobilenetv3_large"]),
        ("attnfd distill --student resnet18 --method a", ["at", "attnfd"]),
        ("attnfd ablate --variant alpha_t", ["alpha_tenth", "alpha_third"]),
        ("attnfd evaluate --method cw", ["cwd"]),
        ("attnfd compare shapes/resnet18/", CELLS),
        ("attnfd compare shapes/teacher shapes/mob", ["shapes/mobilenetv2/be", "shapes/mobilenetv2/be/0"]),
        ("attnfd compare v", ["voc/resnet18/none", "voc/resnet18/none/0"]),
        ("attnfd predict ", ["ablation/shapes/mobilenetv2/be/0", *CELLS[1:], "shapes/teacher"]),
        ("attnfd benchmark ", ["models", "training", "gpu", "startup"]),
        ("attnfd benchmark models shapes/teacher shapes/r", CELLS[1:]),
        ("attnfd benchmark training step --student resnet3", ["resnet34"]),
        ("attnfd export models/shapes/t", ["models/shapes/teacher"]),
        ("attnfd prepare --dataset nothing", []),
    ],
)
def test_what_is_offered(project: Path, line: str, offered: list[str]) -> None:
    assert complete(project, line) == offered


@pytest.mark.parametrize("text", [None, b"\xff\xfe", b"run: [1", b"", b"recipes: 7", b"- a"])
def test_params_that_cannot_be_read_offer_nothing(tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "params.yaml").write_bytes(text)
    assert complete(tmp_path, "attnfd prepare --dataset s") == []
