"""`attnfd benchmark training`: it compares what it names, and it keeps its numbers."""

import json
from functools import partial
from pathlib import Path

import mlflow
import pytest
import torch

from attnfd import discovery
from attnfd.bench import steps, timing
from attnfd.bench.rows import to_rows
from attnfd.bench.run import PARTS, bench
from attnfd.bench.setting import Setting, make_objective, make_teacher
from attnfd.bench.ways import OURS, SHORTCUTS, VARIANTS, Released
from attnfd.data.transforms import normalize
from attnfd.errors import UserError
from attnfd.training.objective import Objective
from tests import miniature

TINY = partial(Setting.load, "shapes", "mobilenetv2", "attnfd", (33, 33), 2, rounds=1)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "params.yaml").write_bytes((miniature.PROJECT / "params.yaml").read_bytes())
    miniature.change(folder, {"run": miniature.RUN, "recipes": {"shapes": miniature.SHAPES}})
    done = miniature.run(folder, "python", "-m", "attnfd", "prepare", "--dataset", "shapes")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(autouse=True)
def surroundings(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    monkeypatch.setenv("ATTNFD_DEVICE", "cpu")
    monkeypatch.setattr(timing, "WARM_UP", 1)


def test_only_the_released_step_goes_back_through_the_teacher() -> None:
    for kind, expected in ((Released, True), (Objective, False)):
        teacher = make_teacher(TINY(), frozen=False)
        objective = make_objective(TINY(), teacher, kind)
        images, target = TINY().noise()
        loss = torch.stack(list(objective(normalize(images), target, 0.0).values())).sum()
        loss.backward()
        grads = [parameter.grad for parameter in teacher.backbone.parameters()]
        assert all((grad is not None) == expected for grad in grads)


def test_a_step_has_the_classes_and_the_label_loss_of_the_recipe(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("params.yaml", "data/shapes/card.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((project / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    training = {"dice": 0.5, "class_weights": "balanced"}
    miniature.change(tmp_path, {"recipes": {"shapes": {"training": training}}})
    card = json.loads((tmp_path / "data" / "shapes" / "card.json").read_text())
    images, target = TINY().noise()
    objective = make_objective(TINY(), make_teacher(TINY(), frozen=True))
    logits = objective.model(normalize(images)).logits
    assert logits.shape[1] == len(card["classes"]) > target.max()
    assert objective.labels.dice == 0.5
    assert objective.labels.weights is not None
    unprepared = Setting.load("voc", "mobilenetv2", "attnfd", (33, 33), 2)
    assert unprepared.noise()[1].max() == 20
    assert unprepared.labels(unprepared.training).dice == 0


def test_ways_to_compute_the_step_differ_where_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    networks: list[tuple[torch.nn.Module, torch.nn.Module]] = []
    made = steps.make_objective

    def objective(given, teacher, kind):
        networks.append((teacher, made(given, teacher, kind)))
        return networks[-1][1]

    monkeypatch.setattr(steps, "make_objective", objective)
    for variant in VARIANTS.values():
        steps.training_step(TINY(), variant)()
        teacher, trained = networks.pop()
        norms = [module for module in teacher.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        assert bool(norms) != variant.frozen
        weight = trained.model.backbone.get_submodule("features.0.0").weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == variant.channels_last
    assert next(iter(VARIANTS.values())).released
    assert OURS in VARIANTS.values()


def test_a_ratio_is_of_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    speeds = iter([9.0, 9.0, 1.0, 1.0, 100.0, 100.0, 2.0, 2.0])  # speed of the machine in each call

    def costing(work: float):
        def call() -> None:
            now[0] += work * next(speeds)

        return call

    seconds = timing.take_turns({"a": costing(2), "b": costing(3)}, rounds=3, title="")
    assert seconds == {"a": [2, 200, 4], "b": [3, 300, 6]}
    assert [row.ratio for row in to_rows("part", seconds)] == [1, 1.5]
    assert [row.ms for row in to_rows("part", seconds)] == [4000, 6000]


@pytest.mark.slow
def test_every_part_is_measured_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers, plot = tmp_path / "new" / "bench.json", tmp_path / "bench.png"
    bench(TINY(), list(PARTS), numbers=numbers, plot=plot)
    content = json.loads(numbers.read_text())
    rows = {part: [row for row in content["rows"] if row["part"] == part] for part in PARTS}
    assert all(row["ms"] > 0 for row in content["rows"])
    assert [row["name"] for row in rows["step"]] == list(VARIANTS)
    assert all(row["memory_mib"] > 50 for row in rows["step"])
    assert {row["name"] for row in rows["methods"]} == set(discovery.names("distillers"))
    assert [row["name"] for row in rows["kernels"]] == [
        *("32-true", *(f"32-true without {kind.__name__}" for kind in SHORTCUTS)),
        *("bf16-mixed", *(f"bf16-mixed without {kind.__name__}" for kind in SHORTCUTS)),
        "bf16-mixed without cast_weights",
    ]
    assert [row["name"] for row in rows["teacher"]] == ["none", "teacher"]
    assert [row["name"] for row in rows["sharing"]] == [
        f"{len(discovery.names('distillers')) - 1} students, a teacher each",
        "one teacher for all",
    ]
    assert [row["name"] for row in rows["loader"]][:3] == ["bare step", "0 processes", "1 processes"]
    assert [row["name"] for row in rows["loop"]] == ["bare step", "step of the loop"]
    whole, *parts = (row["ms_p10"] for row in rows["split"])
    assert max(parts) < whole
    assert content["setting"]["size"] == [33, 33]
    assert content["machine"]["threads"] == torch.get_num_threads()
    assert plot.read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in shown for name in (*VARIANTS, "evaluation"))
    client = mlflow.MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    experiment = client.get_experiment_by_name("bench")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["stage"] == "bench"
    assert run.data.metrics["evaluate/evaluation"] == pytest.approx(rows["evaluate"][1]["ms"])


def test_a_part_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match="PART: unknown name 'steps'"):
        bench(TINY(), ["steps"], numbers=None, plot=None)
    with pytest.raises(UserError, match="students"):
        Setting.load("shapes", "vgg", "attnfd")
