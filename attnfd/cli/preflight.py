"""Checks that cost seconds, made before anything that costs hours."""

from attnfd import discovery
from attnfd.config.params import Params, load_params
from attnfd.config.schema import NetworkConfig
from attnfd.config.section import validate
from attnfd.errors import UserError
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

    def check_backbone(config: NetworkConfig, key: str) -> None:
        if config.network == "deeplabv3plus":
            backbones.check_name(str(config.backbone), f"{params.source}: {key}.backbone")

    for dataset in params.raw["recipes"]:
        prepare = params.prepare(dataset)
        reader = discovery.component("readers", prepare.reader)
        validate(reader.Options, prepare.options, f"{params.source}: recipes.{dataset}.prepare")
        for method in params.raw["methods"]:
            params.method(method, dataset)
        for variant in params.raw["ablate"]:
            params.method("attnfd", dataset, variant)
        check_backbone(params.train_teacher(dataset), "train_teacher")
    for student in params.raw["students"]:
        check_backbone(params.student(student), f"students.{student}")


def check_weights(params: Params) -> None:
    """Make every network that is to be trained, or find its weights, and read every imported teacher."""
    from attnfd.networks.base import kind_of
    from attnfd.students.student import check_layers
    from attnfd.teachers import imported

    students = dict.fromkeys([*params.run.students, *params.run.ablate.students])
    methods = {name: params.method(name, params.run.datasets[0]) for name in params.run.methods}
    done = set()
    for dataset in params.run.datasets:
        teacher = params.train_teacher(dataset)
        classes = _classes(params, dataset)
        networks: dict[str, tuple[NetworkConfig, str]] = {}
        if teacher.checkpoint is None:
            networks["train_teacher"] = teacher, teacher.weights
        networks |= {
            f"students.{name}": (params.student(name), params.distill(dataset).weights) for name in students
        }
        if teacher.checkpoint is not None:
            imported.check_teacher(teacher, classes)
        for key, (config, weights) in networks.items():
            made = (config.model_dump_json(include=set(NetworkConfig.model_fields)), weights)
            if made in done:
                continue
            done.add(made)
            if config.network == "deeplabv3plus":
                kind_of(config.network).check(config, classes, weights)
                continue
            try:
                network = kind_of(config.network).check(config, classes, weights)
            except UserError as error:
                raise UserError(f"{params.source}: {key}: {error}") from None
            if network is not None:
                for name, method in methods.items():
                    check_layers(name, method, student=network.info, teacher=network.info)


def _classes(params: Params, dataset: str) -> int:
    """How many classes a dataset has, as its reader says, which need not be prepared."""
    from attnfd import paths
    from attnfd.data.prepared import dataset_root

    prepare = params.prepare(dataset)
    reader = discovery.component("readers", prepare.reader)
    options = validate(reader.Options, prepare.options, f"{params.source}: recipes.{dataset}.prepare")
    return len(reader(options, dataset_root(params, dataset, paths.prepared(dataset))).classes)
