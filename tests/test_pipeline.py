"""The pipeline, by running it in miniature: what it leaves, and what a change makes stale."""

import json
import re
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests import miniature

CELLS = {
    "prepare@shapes",
    "train_teacher@shapes",
    "evaluate_teacher@shapes",
    "freeze@shapes",
    "distill@shapes-mobilenetv2-none-0",
    "distill@shapes-mobilenetv2-attnfd-0",
    "evaluate@shapes-mobilenetv2-none-0",
    "evaluate@shapes-mobilenetv2-attnfd-0",
    "ablate@shapes-mobilenetv2-b-0",
    "report@shapes",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which `dvc repro` has run to the end; tests that change it take a copy."""
    folder = miniature.clone(tmp_path_factory.mktemp("finished"))
    done = miniature.run(folder, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The finished clone, to be changed at will."""
    return Path(shutil.copytree(finished, tmp_path / "copy", symlinks=True))


def stale(folder: Path) -> set[str]:
    """Cells that `dvc repro` would run, with all that follows from them."""
    listed = miniature.run(folder, "dvc", "repro", "--dry")
    assert listed.returncode == 0, listed.stderr
    return set(re.findall(r"^Running stage '([^']+)'", listed.stdout, re.MULTILINE))


def lock(folder: Path) -> dict[str, object]:
    return YAML(typ="safe").load((folder / "dvc.lock").read_text())["stages"]


def test_every_cell_ran_and_nothing_is_stale(finished: Path) -> None:
    assert set(lock(finished)) == CELLS
    assert stale(finished) == set()


def test_outs_hold_what_a_user_looks_for(finished: Path) -> None:
    results = finished / "results/shapes/mobilenetv2/attnfd/0"
    for name in ("metrics.json", "per_class.csv", "confusion.png", "overlays.png", "attention.png"):
        assert (results / name).stat().st_size > 0
    report = finished / "reports/shapes"
    for name in ("report.md", "tables/comparison.csv", "tables/ablation.csv", "figures/curves.png"):
        assert (report / name).stat().st_size > 0
    card = json.loads((finished / "models/shapes/frozen/card.json").read_text())
    source = json.loads((finished / "models/shapes/teacher/card.json").read_text())
    assert card["source_sha256"] == source["sha256"]
    assert card["val_miou"] == source["val_miou"]


def test_a_second_clone_writes_the_same_lock(finished: Path, tmp_path: Path) -> None:
    second = miniature.clone(tmp_path / "second")
    assert miniature.run(second, "dvc", "repro").returncode == 0
    assert (second / "dvc.lock").read_bytes() == (finished / "dvc.lock").read_bytes()


ATTNFD = {
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
        ({"methods": {"kd": {"weight": 2}}}, set()),
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
    ids=["weight", "unused method", "student", "unused student", "epochs", "variant", "seed", "title"],
)
def test_a_param_makes_stale_what_uses_it(copy: Path, changes: dict, expected: set[str]) -> None:
    miniature.change(copy, changes)
    assert stale(copy) == expected


def test_a_distillers_file_makes_stale_its_own_cells(copy: Path) -> None:
    with (copy / "attnfd/distillers/attnfd.py").open("a") as file:
        file.write("\n# a change\n")
    assert stale(copy) == ATTNFD
    with (copy / "attnfd/distillers/kd.py").open("a") as file:
        file.write("\n# a change\n")
    assert stale(copy) == ATTNFD


def test_a_machine_setting_makes_nothing_stale(copy: Path) -> None:
    (copy / ".env").write_text("ATTNFD_DEVICE=cpu\nATTNFD_WORKERS=1\n")
    assert stale(copy) == set()


def test_another_dataset_and_back_recomputes_nothing(copy: Path) -> None:
    recipes = YAML(typ="safe").load((copy / "params.yaml").read_text())["recipes"]
    before = lock(copy)
    miniature.change(copy, {"recipes": {"other": recipes["shapes"]}, "run": {"datasets": ["other"]}})
    switched = miniature.run(copy, "dvc", "repro", "prepare@other")
    assert switched.returncode == 0, switched.stderr
    miniature.change(copy, {"run": {"datasets": ["shapes"]}})
    assert stale(copy) == set()
    assert {name: lock(copy)[name] for name in before} == before
