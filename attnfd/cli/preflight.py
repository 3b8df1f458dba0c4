"""Checks that take seconds, made before work that takes hours. They leave no files."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from attnfd import discovery, paths
from attnfd.config.network import DEEPLAB, NetworkConfig
from attnfd.config.params import Params, load_params
from attnfd.config.section import validate
from attnfd.errors import UserError
from attnfd.runtime import machine

Check = Callable[[], str]
"""Returns what it found, in a few words. Raises a `UserError` if that is a problem."""


def check_params() -> Params:
    """Read `params.yaml` and the machine's settings.

    Raises:
        UserError: a section, key, value, axis or environment variable is not valid.
    """
    machine.settings()
    return load_params()


def check_all() -> Params:
    """Check all that the active recipes need, data first.

    Raises:
        UserError: the first problem.
    """
    params = check_params()
    check_components(params)
    for _, check in _checks(params):
        check()
    return params


def inspect() -> tuple[Table, list[str]]:
    """The checks of `check_all` as a table, with the number of stale cells; and all problems.

    Raises:
        UserError: `params.yaml` or a setting of the machine is not valid. All other checks depend on them.
    """
    params = check_params()
    check_components(params)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("checked", no_wrap=True)
    table.add_column("found", overflow="fold")
    problems = []
    for name, check in _checks(params):
        try:
            table.add_row(escape(name), escape(check()))
        except UserError as error:
            problems.append(str(error))
            table.add_row(escape(name), "[bold red]a problem, see below[/]")
    if not problems:
        table.add_row("stale cells", escape(_stale()))
    return table, problems


def check_components(params: Params) -> None:
    """Check the options of every method, ablation variant and reader, and the name of every backbone.

    A backbone of timm is checked only if `run` uses it, because timm need not be installed.
    """
    from attnfd.cli import weights
    from attnfd.models import backbones, from_timm

    def check_backbone(config: NetworkConfig, key: str, *, used: bool) -> None:
        if config.network == DEEPLAB and (used or not from_timm.has(config.backbone)):
            backbones.check_name(str(config.backbone), f"{params.source}: {key}.backbone")

    for dataset in params.raw["recipes"]:
        prepare = params.prepare(dataset)
        reader = discovery.component("readers", prepare.reader)
        validate(reader.Options, prepare.options, f"{params.source}: recipes.{dataset}.prepare")
        for method in params.raw["methods"]:
            params.method(method, dataset)
        for variant in params.raw["ablate"]:
            params.method("attnfd", dataset, variant)
        check_backbone(params.train_teacher(dataset), "train_teacher", used=dataset in params.run.datasets)
    for student in params.raw["students"]:
        used = student in weights.students(params)
        check_backbone(params.student(student), f"students.{student}", used=used)


def _checks(params: Params) -> Iterator[tuple[str, Check]]:
    for dataset in params.run.datasets:
        yield f"data of {dataset}", partial(_data, params, dataset)
        if params.train_teacher(dataset).checkpoint is not None:
            yield f"teacher of {dataset}", partial(_imported_teacher, params, dataset)
    from attnfd.cli import weights

    wanted = weights.wanted(params)
    if not (wanted or any(weights.others(params))):
        yield "weights", lambda: "none to load: training starts from random weights"
    for start in wanted:
        yield f"weights of {start.backbone}", partial(weights.check, start)
    for other in weights.others(params):
        yield f"network {other.key} on {other.dataset}", partial(_network, params, other)
    for name in weights.students(params):
        if params.student(name).weights is not None:
            yield f"weights of {name}", partial(_started, params, name)
    yield "device", _device
    yield "precision", partial(_precision, params)
    yield "versions", _versions
    yield "MLflow store", _store


def _data(params: Params, dataset: str) -> str:
    reader = _reader(params, dataset)
    splits = {split: len(pairs) for split, pairs in reader.pairs().items()}
    counts = ", ".join(f"{split} {images}" for split, images in splits.items())
    drawn = reader.root == paths.prepared(dataset)
    where = "drawn by prepare" if drawn else str(reader.root)
    return f"{where}: {sum(splits.values())} images ({counts})"


def _imported_teacher(params: Params, dataset: str) -> str:
    from attnfd.teachers import imported

    teacher = params.train_teacher(dataset)
    classes = _reader(params, dataset).classes
    imported.check_teacher(teacher, len(classes), classes)
    mapped = f", {len(teacher.classes)} classes to {len(classes)}" if teacher.classes else ""
    return f"imported from {teacher.checkpoint}{mapped}"


def _network(params: Params, other: Any) -> str:
    from attnfd.cli import weights

    return weights.check_other(params, other, len(_reader(params, other.dataset).classes))


def _started(params: Params, student: str) -> str:
    from attnfd.students.student import load_start
    from attnfd.tracking import starts

    section = params.student(student)
    with starts.fetched(section) as folder:
        load_start(section, f"{params.source}: students.{student}", folder)
    return f"start from {section.weights}"


def _reader(params: Params, dataset: str) -> Any:
    """The reader of a dataset, also of one that is not prepared yet."""
    from attnfd.data.prepared import dataset_root

    prepare = params.prepare(dataset)
    reader = discovery.component("readers", prepare.reader)
    options = validate(reader.Options, prepare.options, f"{params.source}: recipes.{dataset}.prepare")
    return reader(options, dataset_root(params, dataset, paths.prepared(dataset)))


def _device() -> str:
    import torch

    from attnfd.bench import timing
    from attnfd.runtime.fabric import start_fabric

    device = start_fabric("32-true").device
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        return f"GPU: {torch.cuda.get_device_name(device)}, {memory / 2**30:.0f} GiB"
    import psutil  # type: ignore[import-untyped]

    found = timing.machine()
    memory = psutil.virtual_memory().total
    return f"CPU: {found['processor']}, {found['cores']} cores, {memory / 2**30:.0f} GiB of memory"


def _precision(params: Params) -> str:
    from attnfd.runtime.fabric import chosen_precision

    trainings = [
        training(dataset)
        for dataset in params.run.datasets
        for training in (params.train_teacher, params.distill)
    ]
    asked = dict.fromkeys(training.precision for training in trainings)
    return ", ".join(f"auto: {chosen_precision(one)} here" if one == "auto" else one for one in asked)


def _versions() -> str:
    import platform
    from importlib.metadata import version

    import torch

    gpu = f", CUDA {torch.version.cuda}" if torch.version.cuda else ", without CUDA"
    return f"attnfd {version('attnfd')}, torch {torch.__version__}{gpu}, Python {platform.python_version()}"


def _store() -> str:
    from attnfd.tracking import store

    store.check()
    return store.shown(store.address()) + (", new" if store.is_new() else "")


def _stale() -> str:
    from attnfd.sweep.graph import PIPELINE, Graph
    from attnfd.sweep.plan import reasons

    if not Path(PIPELINE).exists():
        return f"unknown: there is no {PIPELINE} here"
    graph = Graph()
    stale = len(reasons(graph))
    return f"{stale} of {len(graph.jobs)}" + ("; attnfd plan lists them" if stale else "")
