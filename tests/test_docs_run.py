"""Commands and examples of the documents run in order in a copy of a finished pipeline."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from textwrap import dedent

import mlflow
import pytest
from PIL import Image
from ruamel.yaml import YAML

from attnfd.config.params import parse_params
from tests import miniature, servers
from tests.data.trees import camvid_tree
from tests.imports.trees import coco
from tests.readers.trees import folder_tree
from tests.test_docs import DOCUMENTS

# Lines that are left out, by their beginning, with the reason.
LEFT_OUT = {
    r"pip install": "wants a package registry",
    r"\. \.venv/bin/activate": "the tests run in an environment already",
    r"make test": "would run this",
    r"make ui": "is `attnfd ui`, which runs, at a port that may be taken",
    r"attnfd data fetch (voc|sbd)": "gigabytes; tests/sources/test_fetch.py has a server of its own",
    r"python -m tests.mutation": "takes an hour",
    r"attnfd benchmark gpu +# with": "needs a GPU",
    r"python -m attnfd.bench.gpu": "needs a GPU",
    r"pytest -m gpu": "needs a GPU",
    r"attnfd train_teacher --dataset camvid_cpu": "downloads weights, and trains for half an hour",
    r"attnfd choose --dataset camvid_cpu": "needs trials that take an hour; runs with shapes",
    r"attnfd plan --equal-time camvid_cpu": "needs a teacher that takes half an hour; runs with shapes",
    r"ray start": "leaves processes behind; only `ray stop` ends them, with those of others",
    r"attnfd sweep --address": "needs the Ray of the lines before; tests/sweep/test_sweep.py starts its own",
}

# Replacements for values that the reader chooses, long commands, and what exists only once on a machine.
INSTEAD = {
    "make ": "make --old-file .venv/uv --old-file .venv/pipeline --old-file .venv/dev ",
    "attnfd ui ": "attnfd ui --port {port} ",
    ":5000": ":{port}",
    "--port 5000": "--port {port}",
    "5001": "{port}",
    "postgresql://attnfd@127.0.0.1:5432/mlflow": "sqlite:///{given}/server.db",
    "/mnt/team/attnfd": "{given}/remote",
    "--default store s3:": "--force --default store s3:",  # This step already did the other choice.
    "https://s3.example.org": "{s3}",
    "/absolute/path/to/mine": "{given}/mine",
    "https://example.org/team/data.git": "$PWD",
    "--out datasets/mine": "--out datasets/theirs",
    "exports/streets": "{given}/export",
    "/path/to/camvid": "{given}/camvid",
    "/tmp/soak --minutes 60": "{given}/soak --minutes 0",
    "<run id>": "{run}",
    "bad.jpg --out out": "bad.jpg --out out || test $? = 2",
    'commit -m "Three seeds"': 'commit --allow-empty -m "Three seeds"',
    "exp run --set-param": "exp run --name lofty-mink --set-param",
    "train_teacher --dataset voc": "train_teacher --dataset shapes",
    "train_teacher@voc": "train_teacher@shapes",
    "--nproc-per-node 4": "--nproc-per-node 2",
    "recipes:\n  mine:": "run: {{datasets: [mine]}}\nrecipes:\n  mine:",
    "epochs: 60, batch_size: 8": "epochs: 5, batch_size: 8",
    "epochs: 30, batch_size: 8": "epochs: 5, batch_size: 8",
    "weights: imagenet, validate": "weights: none, validate",
    "[none, kd, at, sp, ickd, overhaul, dist, cirkd, lad, attnfd, fitnet, cwd]": "[none, attnfd, cwd]",
    "[b, e, d, be, bd, ed, norm_sample, norm_batch, norm_none, connector_after, channel_only, spatial_only, "
    "no_attention, alpha_third, alpha_3, with_kd]": "[e, norm_sample, no_attention, channel_only, "
    "spatial_only]",
    "seeds: [0, 1, 2]/": "seeds: [0, 1]/",
    "for seed in 0 1 2;": "for seed in 0 1;",
    "--size 257 257 --batch 2 --rounds 7": "--size 33 33 --batch 2 --rounds 1",
    "--size 257 257 --batch 2 --rounds 9": "--size 33 33 --batch 2 --rounds 1",
    "--size 257 257 --batch 2 --rounds 3": "--size 33 33 --batch 2 --rounds 1",
    "methods: [none, kd, cwd, dist, attnfd]\n  seeds: [0, 1, 2]": "methods: [none, attnfd]\n  seeds: [0, 1]",
    "epochs: 120, validate_every: 24": "epochs: 2, validate_every: 1",
    "methods: [none, kd, attnfd]\n  seeds: [0, 1, 2]": "methods: [none, attnfd]\n  seeds: [0, 1]",
    "unlabelled: [extra], epochs: 3": "unlabelled: [extra], epochs: 1",
    "epochs: 174, validate_every: 58": "epochs: 2, validate_every: 1",
    "attnfd prepare --dataset camvid_cpu": (
        "ATTNFD_CAMVID_ROOT={given}/camvid attnfd prepare --dataset camvid_cpu"
    ),
    "ATTNFD_CHECKPOINT_SECONDS=900 attnfd sweep --jobs 2 --students-per-teacher 4": (
        "ATTNFD_CAMVID_ROOT={given}/camvid attnfd check"  # Its trainings take hours.
    ),
    "evaluation_layout.py 9": "evaluation_layout.py 1",
    "/tmp/miniature": "{given}/miniature",
    "loader --rounds 7": "loader --rounds 1",
    "loop --rounds 7": "loop --rounds 1",
    "evaluate --rounds 15": "evaluate --rounds 1",
    "--size 256 256": "--size 64 64 --rounds 2",
    "--size 128 128": "--size 64 64 --rounds 2",
}

# A block that ends with one of these keeps running, and answers there, while the rest of its document runs.
SERVERS = {"attnfd ui": "health", "mlflow server": "health", "mlflow models serve": "ping"}


def scripts(document: Path) -> list[tuple[str, str]]:
    """Language and text of the blocks in a document, in order."""
    found = re.findall(
        r"^ *```(sh|python|yaml)\n(.*?)^ *```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return [(language, dedent(text)) for language, text in found]


def to_run(text: str, values: Mapping[str, object]) -> str:
    """A block without the lines to leave out, and with the replacements."""
    lines = text.splitlines(keepends=True)
    text = "".join(line for line in lines if not any(re.match(pattern, line) for pattern in LEFT_OUT))
    for shown, used in INSTEAD.items():
        text = text.replace(shown, used.format(**values))
    return text


SHOWN = {document: scripts(document) for document in DOCUMENTS}
# tests/test_how_tos.py runs the other documents.
FOLLOWED = [
    document
    for document, found in SHOWN.items()
    if {"sh", "python"} & {kind for kind, _ in found} and not document.name.startswith("add-a-")
]


def test_what_does_not_run_as_shown_is_shown() -> None:
    text = "\n".join(text for found in SHOWN.values() for _, text in found)
    for pattern in LEFT_OUT:
        assert re.search(f"^{pattern}", text, re.MULTILINE), pattern
    for shown in INSTEAD:
        assert shown in text


@pytest.mark.parametrize("document", FOLLOWED, ids=lambda path: path.stem)
def test_the_params_that_a_page_sets_are_accepted(document: Path, tmp_path: Path) -> None:
    shutil.copy(miniature.PROJECT / "params.yaml", tmp_path)
    own = {"prepare": {"reader": "folder", "root": "datasets/mine", "classes": {"a": 0, "b": 1}, "val": 0.2}}
    own |= {name: {} for name in ("training", "train_teacher", "distill", "evaluate")}
    timed = {"mobilenetv2_equal_time": {"backbone": "mobilenetv2"}}  # `attnfd plan --write` adds it
    miniature.change(tmp_path, {"recipes": {"mine": own}, "students": timed})
    for language, text in SHOWN[document]:
        if language == "yaml":
            miniature.change(tmp_path, YAML(typ="safe").load(text))
            parse_params((tmp_path / "params.yaml").read_text(), document.name)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished pipeline, its origin and remote, and example data of a reader."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "project").mkdir()
    project = miniature.clone(folder / "project")
    small = {"run": {"students": ["resnet18", "mobilenetv2"]}, "train_teacher": {"backbone": "resnet18"}}
    small["training"] = {"sync_bn": False}  # `torchrun` on a CPU
    miniature.change(project, small)
    for command in (
        f"dvc config cache.dir {folder}/cache",  # The copies share the cache.
        f"dvc remote add --default given {folder}/remote",
        "dvc repro",
        f"git init --quiet --bare {folder}/origin.git",
        f"git remote add origin {folder}/origin.git",
    ):
        succeed(project, command)
    miniature.commit(project, "finished")
    succeed(project, "git push --quiet --set-upstream origin main")
    images = project / "data/shapes/images"
    (project / "photos").symlink_to("data/shapes/images")
    shutil.copy(next(images.iterdir()), project / "photo.png")
    more_than_a_tile = Image.open(project / "photo.png").convert("RGB").resize((1200, 1100))
    more_than_a_tile.save(project / "large.jpg")
    (project / "bad.jpg").write_text("no image")
    folder_tree(folder / "mine")
    coco(folder / "export")
    camvid_tree(folder / "camvid", {"train": 8 * ((48, 64),), "val": 2 * ((48, 64),)})
    return folder


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with servers.s3("team") as address:
        yield address


def surroundings(project: Path) -> dict[str, str]:
    """The project's code is used before an installed one; with a name for commits and keys for S3."""
    name = {f"GIT_{who}_{what}": "tests" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = os.pathsep.join(filter(None, (str(project), os.environ.get("PYTHONPATH"))))
    return {**name, "PYTHONPATH": path, "SECRET": "tests", "AWS_DEFAULT_REGION": "us-east-1"}


def succeed(project: Path, script: str) -> None:
    done = miniature.run(project, *BASH, script, **surroundings(project))
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


BASH = ("bash", "-euo", "pipefail", "-c")


@pytest.mark.slow
@pytest.mark.parametrize("document", FOLLOWED, ids=lambda path: path.stem)
def test_a_reader_can_follow(document: Path, given: Path, s3: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(given / "project", project, symlinks=True)
    port = servers.free_port()
    values = {"given": given, "s3": s3, "port": port, "run": a_run(project)}
    with ExitStack() as running:
        for language, text in SHOWN[document]:
            script = to_run(text, values)
            last = (script.splitlines() or [""])[-1]
            path = next((path for server, path in SERVERS.items() if last.startswith(server)), None)
            if language == "yaml":
                miniature.change(project, YAML(typ="safe").load(script))
            elif language == "python":
                (project / "example.py").write_text(script)
                succeed(project, "python example.py")
            elif path:
                address = f"http://127.0.0.1:{port}/{path}"
                running.enter_context(
                    servers.serving([*BASH, script], address, project, **surroundings(project))
                )
            else:
                succeed(project, script)
                for wanted in re.findall(r"\bs/[^/]*/([^/$]+)/", script) if "sed -i" in script else ():
                    assert wanted in (project / "params.yaml").read_text()
    shutil.rmtree(project)


def a_run(project: Path) -> str:
    """Id of a run with a model."""
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiment = client.get_experiment_by_name("shapes")
    assert experiment is not None
    query = "tags.stage = 'distill' and tags.student = 'resnet18'"
    return client.search_runs([experiment.experiment_id], query)[0].info.run_id
