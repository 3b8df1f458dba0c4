"""The first line of a stage: the position of its cell in DVC's order. And the last line of `ablate`."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from attnfd.cli import opening, pipeline
from attnfd.config.params import load_params
from attnfd.config.task import Task
from attnfd.errors import UserError
from attnfd.paths import Cell
from attnfd.sweep.graph import Graph
from attnfd.tracking import trainings
from tests import miniature

AXES = {
    "datasets": ["voc", "shapes"],
    "students": ["resnet18", "mobilenetv2"],
    "methods": ["none", "attnfd"],
    "seeds": [0, 3],
    "ablate": {"students": ["mobilenetv2"], "variants": ["b", "e"], "seeds": [1]},
    "tune": {"methods": ["kd", "attnfd"]},
}


def test_cells_are_those_of_dvc_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    folder = miniature.clone(tmp_path)
    miniature.change(folder, {"run": AXES})
    monkeypatch.chdir(folder)
    params = load_params()
    jobs = list(Graph().jobs.values())
    wanted = []
    for place, job in enumerate(jobs, start=1):
        options = job.options
        names = [
            options[key] for key in ("dataset", "student", "method", "variant", "factor") if key in options
        ]
        seed = f", seed {options['seed']}" if "seed" in options else ""
        wanted.append(f"cell {place} of {len(jobs)} · {job.stage} {' '.join(names)}{seed}")
    assert [opening.line(stage, cell, params) for stage, cell in opening.graph(params)] == wanted
    assert f"cell 38 of {len(jobs)} · distill voc mobilenetv2 attnfd, seed 3" in wanted


def test_a_cell_outside_of_the_graph_has_no_place() -> None:
    params = load_params(miniature.PROJECT / "params.yaml")
    cell = Cell.distilled("shapes", "resnet18", "kd", 7)
    assert opening.line("distill", cell, params) == "distill shapes resnet18 kd, seed 7"


def test_of_several_processes_one_prints_a_line_per_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = load_params(miniature.PROJECT / "params.yaml")
    cells = [Cell.distilled("shapes", student, "none", 9) for student in ("resnet18", "mobilenetv2")]
    for key, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(key, value)
    opening.announce("distill", cells, params)
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    opening.announce("distill", cells, params)
    assert capsys.readouterr().out.splitlines() == [
        "distill shapes resnet18 none, seed 9",
        "distill shapes mobilenetv2 none, seed 9",
    ]


def test_ablate_ends_with_the_scores_of_what_did_not_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = load_params(miniature.PROJECT / "params.yaml")
    tasks = [Task(params, Cell.ablated("shapes", "mobilenetv2", variant, 0)) for variant in "bed"]
    outcomes = [("hash", SimpleNamespace(metrics={"miou": 0.40678})), UserError("nan"), ("hash", None)]
    given = []
    monkeypatch.setattr(pipeline, "_stage", lambda name: lambda tasks: outcomes)
    monkeypatch.setattr(trainings, "train", lambda tasks, stage: given.append(stage(tasks)))
    pipeline._train("ablate", tasks)
    assert given == [outcomes]
    assert capsys.readouterr().out == "shapes mobilenetv2-attnfd-b-0: mIoU 40.7\n"
