"""Checks that cost seconds, made before anything that costs hours."""

from attnfd import discovery
from attnfd.config.params import Params, load_params
from attnfd.config.section import validate
from attnfd.runtime import machine


def check_params() -> Params:
    """Read `params.yaml` and the machine's settings.

    Raises:
        UserError: a section, key, value, axis or environment variable does not hold.
    """
    machine.settings()
    return load_params()


def check_all() -> Params:
    """Also check what needs heavier imports: every method, reader, backbone, weights, device and the store.

    Raises:
        UserError: the first thing that does not hold.
    """
    params = check_params()
    check_components(params)
    check_weights(params)

    from attnfd import paths
    from attnfd.data.prepared import dataset_root
    from attnfd.runtime.fabric import start_fabric
    from attnfd.tracking import store

    for dataset in params.run.datasets:
        dataset_root(params, dataset, paths.prepared(dataset))
    start_fabric("32-true")
    store.check()
    return params


def check_components(params: Params) -> None:
    """Type the options of every method, ablation variant and reader, and look up every backbone."""
    from attnfd.models import backbones

    for dataset in params.raw["recipes"]:
        prepare = params.prepare(dataset)
        reader = discovery.component("readers", prepare.reader)
        validate(reader.Options, prepare.options, f"{params.source}: recipes.{dataset}.prepare")
        for method in params.raw["methods"]:
            params.method(method, dataset)
        for variant in params.raw["ablate"]:
            params.method("attnfd", dataset, variant)
        teacher = params.train_teacher(dataset).backbone
        discovery.one_of(teacher, backbones.names(), f"{params.source}: train_teacher.backbone")
    for student in params.raw["students"]:
        key = f"{params.source}: students.{student}.backbone"
        discovery.one_of(params.student(student).backbone, backbones.names(), key)


def check_weights(params: Params) -> None:
    """Find the initial weights of every network that is to be trained, and read every imported teacher."""
    from attnfd.models import backbones
    from attnfd.students.student import load_start
    from attnfd.teachers import imported

    students = {*params.run.students, *params.run.ablate.students}
    sections = {name: params.student(name) for name in sorted(students)}
    for name, section in sections.items():
        if section.weights is not None:
            load_start(section, f"{params.source}: students.{name}")
    wanted = {
        (section.backbone, params.distill(dataset).weights)
        for dataset in params.run.datasets
        for section in sections.values()
        if section.weights is None
    }
    for dataset in params.run.datasets:
        teacher = params.train_teacher(dataset)
        if teacher.checkpoint is None:
            wanted.add((teacher.backbone, teacher.weights))
        else:
            imported.check_teacher(teacher, _classes(params, dataset))
    for backbone, weights in sorted(wanted):
        backbones.check_weights(backbone, weights)


def _classes(params: Params, dataset: str) -> int:
    """How many classes a dataset has, as its reader says, which need not be prepared."""
    from attnfd import paths
    from attnfd.data.prepared import dataset_root

    prepare = params.prepare(dataset)
    reader = discovery.component("readers", prepare.reader)
    options = validate(reader.Options, prepare.options, f"{params.source}: recipes.{dataset}.prepare")
    return len(reader(options, dataset_root(params, dataset, paths.prepared(dataset))).classes)
