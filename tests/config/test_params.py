"""params.yaml: valid sections are merged from general to specific, invalid ones are named."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from attnfd.config.params import Params, load_params
from attnfd.config.section import Section, validate
from attnfd.errors import UserError
from attnfd.paths import Cell

SHIPPED = YAML(typ="safe", pure=True).load((Path(__file__).parents[2] / "params.yaml").read_text())


def changed(path: str, value: Any) -> dict[str, Any]:
    """The shipped params with the value at a dotted path replaced; `...` removes it."""
    raw = copy.deepcopy(SHIPPED)
    *parents, last = path.split(".")
    node = raw
    for part in parents:
        node = node[part]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return raw


@pytest.fixture
def minimal(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "params.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


def test_a_recipe_overrides_the_stage_and_the_stage_overrides_training() -> None:
    raw = changed("training.epochs", 7)
    raw["recipes"]["shapes"]["training"].pop("epochs", None)
    for stage in ("train_teacher", "distill"):
        raw["recipes"]["shapes"][stage].pop("epochs", None)
    assert Params(raw).distill("shapes").epochs == 7
    raw["distill"]["epochs"] = 6
    assert Params(raw).distill("shapes").epochs == 6
    raw["recipes"]["shapes"]["training"]["epochs"] = 5
    assert Params(raw).distill("shapes").epochs == 5
    raw["recipes"]["shapes"]["distill"]["epochs"] = 4
    assert Params(raw).distill("shapes").epochs == 4
    assert Params(raw).train_teacher("shapes").epochs == 5


def test_nested_sections_merge_key_by_key() -> None:
    raw = changed("recipes.shapes.train_teacher", {"attention": {"reduction": 4}})
    attention = Params(raw).train_teacher("shapes").attention
    assert attention.reduction == 4
    assert attention.kernel_size == SHIPPED["train_teacher"]["attention"]["kernel_size"]


def test_a_method_is_overridden_per_dataset_and_per_variant() -> None:
    raw = changed("methods.attnfd.on", {"shapes": {"weight": 3}})
    params = Params(raw)
    assert params.method("attnfd", "shapes").weight == 3
    assert params.method("attnfd", "shapes", "be").layers == ("backbone", "encoder")
    assert params.method("attnfd", "shapes", "be").weight == 3


def test_sections_are_frozen() -> None:
    section = Params(SHIPPED).distill("shapes")
    with pytest.raises(ValidationError, match="frozen"):
        section.epochs = 1  # type: ignore[misc]


def test_a_cell_resolves_to_all_that_its_model_depends_on() -> None:
    cell = Cell(stage="distill", dataset="shapes", student="resnet18", method="attnfd", seed=0)
    resolved = Params(SHIPPED).resolve(cell).of_the_model()
    assert resolved["method"]["normalize"] == "channel"
    assert resolved["student"]["backbone"] == "resnet18"
    assert resolved["distill"]["momentum"] == SHIPPED["training"]["momentum"]
    assert resolved["prepare"]["reader"] == "shapes"


BAD = [
    ("trainin", {}, r"trainin.*did you mean 'training'"),
    ("freeze", ..., r"'freeze' is missing"),
    ("training", 3, r"found 3; allowed: keys and values"),
    ("training.epoch", 3, r"epoch: unknown key; did you mean 'epochs'"),
    ("training.lr", "fast", r'lr: found "fast"; allowed: number'),
    ("training.lr", 0, r"lr: found 0.*greater than 0"),
    ("training.lr", "0.1", r'lr: found "0.1"; allowed: number'),
    ("training.epochs", 2.5, r"epochs: found 2\.5"),
    ("training.momentum", ..., r"momentum: missing"),
    ("training.nesterov", 1, r"nesterov: found 1; allowed: boolean"),
    ("training.schedule", "step", r"schedule: found \"step\"; allowed: 'cosine' or 'poly'"),
    ("training.scale", [2, 0.5], r"scale: found \[2\.0, 0\.5\].*low ≤ high"),
    ("training.scale", [1], r"scale"),
    ("training.precision", "8", r"precision: found \"8\"; allowed: '32-true'"),
    ("train_teacher.attention.kernel_size", 4, r"kernel_size: found 4; allowed: an odd number"),
    ("train_teacher.attention.kernelsize", 4, r"attention\.kernelsize: unknown key; did you mean"),
    ("train_teacher.dropout", [0.5, 1.0], r"dropout"),
    ("run.datasets", [], r"run\.datasets"),
    ("run.students", [], r"run\.students"),
    ("run.seeds", [-1], r"run\.seeds\.0: found -1"),
    ("run.ablate.variants", [], r"run\.ablate\.variants"),
    ("run.datasets", ["shape"], r"run\.datasets: unknown name 'shape'; did you mean 'shapes'"),
    ("run.students", ["resnet81"], r"run\.students: unknown name 'resnet81'; did you mean 'resnet18'"),
    ("run.methods", ["attfd"], r"run\.methods: unknown name 'attfd'; did you mean 'attnfd'"),
    ("run.ablate.variants", ["bx"], r"run\.ablate\.variants: unknown name 'bx'"),
    ("methods.magic", {"weight": 1}, r"methods: unknown name 'magic'"),
    ("recipes", {}, r"recipes: found \{\}; allowed: at least one entry"),
    ("recipes.shapes.prepare.reader", "shape", r"prepare\.reader: unknown name 'shape'"),
    ("recipes.shapes.evaluate", ..., r"recipes\.shapes: section 'evaluate' is missing"),
    ("recipes.shapes.training.epoch", 3, r"epoch: unknown key"),
    ("students.resnet18.dropout", 0.5, r"students\.resnet18\.dropout"),
    ("students.resnet18.widht", 1, r"widht: unknown key"),
    ("freeze.tolerance", -1, r"freeze\.tolerance: found -1"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD, ids=[f"{bad[0]}={bad[1]}" for bad in BAD])
def test_an_invalid_value_is_named_in_one_line(path: str, value: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        Params(changed(path, value))
    assert re.search(message, str(caught.value))
    assert str(caught.value).startswith("params.yaml")
    assert "\n" not in str(caught.value)


def test_dropout_of_an_encoder_is_refused_for_networks_without_it() -> None:
    raw = changed("recipes.shapes.distill.encoder_dropout", 0)
    Params(raw)
    raw["students"]["b0"] = {"network": "smp", "architecture": "Segformer", "encoder": "mit_b0"}
    Params(raw)  # It is not among those that run.
    raw["run"]["ablate"]["students"] = ["b0"]
    with pytest.raises(
        UserError, match=r"distill\.encoder_dropout of shapes: found 0; allowed: null, as students\.b0"
    ):
        Params(raw)


BAD_METHODS = [
    ("methods.attnfd.weigth", 1, r"methods\.attnfd\.weigth: unknown key; did you mean 'weight'"),
    ("methods.attnfd.weight", -1, r"methods\.attnfd\.weight: found -1"),
    ("methods.attnfd.layers", [], r"methods\.attnfd\.layers"),
    ("methods.attnfd.layers", ["neck"], r"methods\.attnfd\.layers\.0: found \"neck\"; allowed: 'backbone'"),
    ("methods.attnfd.normalize", "pixel", r"methods\.attnfd\.normalize: found \"pixel\""),
    ("methods.attnfd", None, r"methods\.attnfd: found None; allowed: keys and values"),
    ("methods.attnfd.on", {"moon": {}}, r"methods\.attnfd\.on: unknown name 'moon'"),
    ("methods.attnfd.on", {"shapes": {"weights": 1}}, r"weights: unknown key"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD_METHODS, ids=[bad[0] for bad in BAD_METHODS])
def test_an_invalid_method_is_named_in_one_line(path: str, value: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        Params(changed(path, value)).method("attnfd", "shapes")
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: [1, 2\ntraining:", r"params\.yaml, line 2"),
        ("- a\n- b\n", r"found list; allowed: the sections"),
        ("", r"found NoneType; allowed: the sections"),
        ("run: {}\nrun: {}\n", r"params\.yaml, line 2.*duplicate"),
        # DVC could not read it.
        ("run: {}\nstudents: {mine: {build: a:b}}", r"params\.yaml, line 2: .*with a : in quotes"),
    ],
)
def test_a_file_that_is_no_params_is_named(minimal: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_params(minimal(text))


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found; run this from the repository's root"):
        load_params(tmp_path / "params.yaml")


def test_an_unknown_key_in_an_optional_section_is_named() -> None:
    class Inner(Section):
        width: int = 1

    class Outer(Section):
        inner: Inner | None = None

    with pytest.raises(UserError, match=r"card\.inner\.widht: unknown key; did you mean 'width'"):
        validate(Outer, {"inner": {"widht": 2}}, "card")


def test_a_trial_has_the_general_weight_times_its_factor_in_fewer_epochs() -> None:
    raw = changed("methods.cwd.on", {"shapes": {"weight": 50, "temperature": 2, "epochs": 9}})
    raw["tune"] = {"factors": [0.1, 1, 3], "share": 0.25, "epochs_factor": 0.5}
    params = Params(raw)
    settings = params.resolve(Cell.trial("shapes", "resnet18", "cwd", "0.1", 0))
    assert (settings.method.weight, settings.method.temperature) == (0.3, 2)
    epochs = SHIPPED["recipes"]["shapes"]["distill"]["epochs"]
    assert settings.distill.epochs == settings.distill.validate_every == epochs / 2
    assert settings.of_the_model()["tune"] == {"share": 0.25}


def test_what_trials_begin_from_has_nothing_that_is_chosen_from_them() -> None:
    before = Params(changed("methods.cirkd.on", {"shapes": {"pixel_weight": 0.5}}))
    after = Params(changed("methods.cirkd.on", {"shapes": {"pixel_weight": 0.5, "weight": 7, "epochs": 3}}))
    assert after.method("cirkd", "shapes").weight == 7
    assert after.untuned("cirkd", "shapes") == before.untuned("cirkd", "shapes")
    assert after.untuned("cirkd", "shapes")["pixel_weight"] == 0.5
    other = Params(changed("methods.cirkd.weight", 2))
    assert other.untuned("cirkd", "shapes") != before.untuned("cirkd", "shapes")


def test_epochs_of_a_method_replace_those_of_distill_and_of_nothing_else() -> None:
    params = Params(changed("methods.attnfd.on", {"shapes": {"epochs": 7}}))
    assert params.resolve(Cell.distilled("shapes", "resnet18", "attnfd", 0)).distill.epochs == 7
    assert params.resolve(Cell.ablated("shapes", "resnet18", "with_kd", 0)).distill.epochs == 7
    other = params.resolve(Cell.distilled("shapes", "resnet18", "kd", 0))
    assert other.distill.epochs == SHIPPED["recipes"]["shapes"]["distill"]["epochs"]
    assert "epochs" not in other.of_the_model()["method"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("tune.factors", [1, 0.3, 1.0], "tune.factors: found [1, 0.3, 1.0]; allowed: every value once"),
        ("tune.factors", [0], "tune.factors.0: found 0; allowed: 0.0001 to 10000"),
        ("tune.share", 1, "tune.share: found 1; allowed: less than 1"),
        ("tune.epochs_factor", 2, "tune.epochs_factor: found 2; allowed: 0.01 to 1"),
        ("run.tune.methods", ["kdd"], "run.tune.methods: unknown name 'kdd'; did you mean 'kd'?"),
        ("methods.kd.epochs", 0, "methods.kd.epochs: found 0; allowed: greater than 0"),
    ],
)
def test_tuning_that_cannot_run_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Params(changed(path, value)).method("kd", "shapes")


def test_a_trial_is_where_dvc_writes_it() -> None:
    params = Params(changed("tune.factors", [0.1, 1, 10]))
    axes = params.run.tune.model_copy(update={"methods": ("kd",), "seeds": (2,)})
    folders = [cell.model.as_posix() for cell in Cell.trials(axes, params.tune.factors, "shapes")]
    assert folders == [f"tuning/shapes/mobilenetv2/kd/{factor}/2" for factor in ("0.1", "1", "10")]
    cell = Cell.trial("shapes", "mobilenetv2", "kd", "0.1", 2)
    assert Cell.of_tags(cell.tags) == cell
