"""What a real GPU computes: `pytest -m gpu`. Without one, the CPU rehearses what it can of the same code.

A GPU needs ten minutes at most for all of it.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
from torch import Tensor

from attnfd import discovery
from attnfd.bench import timing
from attnfd.bench.setting import Setting
from attnfd.bench.steps import training_step
from attnfd.bench.ways import GPU_VARIANTS, OURS
from attnfd.config.network import Attention
from attnfd.config.params import load_params
from attnfd.data.loaders import eval_loader
from attnfd.data.prepared import Prepared
from attnfd.data.transforms import normalize
from attnfd.errors import StoppedError
from attnfd.evaluation.inference import confusion
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.frozen import freeze
from attnfd.models.kernels import cast_weights
from attnfd.runtime.fabric import start_fabric
from attnfd.training import loop
from attnfd.training.checkpoints import Checkpoints
from attnfd.training.objective import Objective
from attnfd.training.optimizer import make_optimizer
from attnfd.training.randomness import random_state
from attnfd.training.state import Trainee, TrainState
from tests import miniature
from tests.data import trees
from tests.training.test_training import Curves

PARAMS = load_params(miniature.PROJECT / "params.yaml")
METHODS = discovery.names("distillers")
CLASSES = 11

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CUDA = pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])
on_every_device = pytest.mark.parametrize("device", ["cpu", CUDA])
on_a_gpu = pytest.mark.parametrize("device", [CUDA])


class Tolerance(NamedTuple):
    """Largest relative difference of a term, of the last layer's gradient and of all gradients (by norm)."""

    term: float
    last: float
    all: float


TOLERANCES = {
    "32-true": Tolerance(1e-3, 1e-3, 1e-2),
    "tf32": Tolerance(1e-2, 3e-2, float("inf")),
    "bf16-mixed": Tolerance(0.1, 0.3, float("inf")),
}
"""A factor has 24, 11 and 8 bits. A network of 60 layers that has learned nothing multiplies what is rounded
until the gradient of its first layers is another one."""


@cache
def made(backbone: str, *, attention: bool = False) -> DeepLabV3Plus:
    """Without dropout, whose random numbers differ between devices."""
    gates = Attention() if attention else None
    return DeepLabV3Plus(backbone, classes=CLASSES, attention=gates, dropout=(0.0, 0.0))


def taught() -> DeepLabV3Plus:
    """A frozen teacher with statistics of its maps, like a trained one."""
    teacher = made("mobilenetv2", attention=True)
    if teacher.training:
        with torch.no_grad():
            for _ in range(10):
                teacher(torch.randn(4, 3, 65, 65))
    return freeze(teacher.eval())


def objective(method: str) -> Objective:
    """The same weights in each call."""
    teacher, student = taught(), deepcopy(made("mobilenetv2"))
    torch.manual_seed(0)
    distiller = discovery.component("distillers", method)(student, teacher, PARAMS.method(method, "shapes"))
    return Objective(student, distiller, teacher).train()


def step(method: str, device: str, precision: str, change: Callable[[Objective], Any] | None = None) -> Any:
    """Terms of a step, the gradient of the last layer, and the gradient of all layers."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ATTNFD_DEVICE", device)
        fabric = start_fabric(precision)
    learning = objective(method)
    teacher = learning._teacher[0]
    assert isinstance(teacher, DeepLabV3Plus)
    cast_weights(teacher.to(fabric.device), fabric)
    learning.to(memory_format=torch.channels_last)
    if change is not None:
        change(learning)
    wrapped, _ = fabric.setup(learning, make_optimizer(learning, trees.training()))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4, 3, 65, 65), dtype=torch.uint8, generator=generator)
    target = torch.randint(CLASSES, (4, 65, 65), generator=generator)
    images, target = fabric.to_device((images, target))
    terms = wrapped(normalize(images), target, 0.0)
    fabric.backward(sum(terms.values()))
    gradients = [x.grad.flatten().cpu() for x in learning.model.parameters() if x.grad is not None]
    last = learning.model.classifier.weight.grad
    assert last is not None
    return {name: term.item() for name, term in terms.items()}, last.cpu(), torch.cat(gradients)


def assert_close(found: Any, expected: Any, tolerance: Tolerance) -> None:
    assert found[0] == pytest.approx(expected[0], rel=tolerance.term, abs=1e-4)
    for gradient, reference, allowed in zip(found[1:], expected[1:], tolerance[1:], strict=True):
        assert gradient.isfinite().all()
        assert (gradient - reference).norm() <= allowed * reference.norm()


@pytest.mark.parametrize(
    ("method", "device", "precision"),
    [
        *((method, "cpu", "bf16-mixed") for method in ("attnfd", "cirkd", "dist")),
        *(
            pytest.param(method, "cuda", precision, marks=CUDA.marks)
            for method in METHODS
            for precision in TOLERANCES
        ),
    ],
)
def test_losses_and_gradients_are_those_of_the_cpu(method: str, device: str, precision: str) -> None:
    assert_close(step(method, device, precision), step(method, "cpu", "32-true"), TOLERANCES[precision])


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNFD_CHECKPOINT_SECONDS", "1000")
    return trees.prepared_tree(tmp_path / "tree", {"train": ((80, 80),) * 6, "val": ((97, 131),) * 3})


def fit(prepared: Prepared, device: str, folder: str, method: str = "cirkd", **changes: Any) -> Any:
    """The history and the weights of a deterministic training of six steps."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ATTNFD_DEVICE", device)
        fabric = start_fabric("32-true", deterministic=True)
    learning = objective(method)
    teacher = learning._teacher[0]
    assert isinstance(teacher, DeepLabV3Plus)
    teacher.to(fabric.device)
    torch.manual_seed(0)
    trainee = Trainee(learning, Curves(), "test", Checkpoints(Path(folder)), random_state())
    settings = trees.training(**{"crop": (65, 65), "lr": 0.01, "epochs": 2} | changes)
    history = loop.fit(trainee, prepared, settings, seed=3, fabric=fabric)
    start_fabric("32-true")
    return history, learning.state_dict()


def assert_same_bits(one: Any, other: Any) -> None:
    pd.testing.assert_frame_equal(one[0], other[0], rtol=0, atol=0)
    assert all(torch.equal(value, other[1][name]) for name, value in one[1].items())


@on_every_device
def test_a_training_has_the_same_bits_again_also_after_a_stop(
    device: str, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(prepared, device, "whole")
    assert_same_bits(fit(prepared, device, "again"), whole)
    take = TrainState.step

    def stepping(self: TrainState, *batch: Tensor) -> None:
        take(self, *batch)
        if self.done == 4:  # in the second epoch
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(TrainState, "step", stepping)
        with pytest.raises(StoppedError):
            fit(prepared, device, "stopped")
    torch.manual_seed(99)
    assert_same_bits(fit(prepared, device, "stopped"), whole)


@on_every_device
def test_a_confusion_matrix_is_that_of_the_cpu(device: str, prepared: Prepared) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ATTNFD_DEVICE", device)
        there = start_fabric("32-true").device
    torch.manual_seed(0)
    model = deepcopy(made("resnet18")).eval()
    found, expected = (
        confusion(model.to(place), eval_loader(prepared, "val", 2, device=place), CLASSES, device=place)
        for place in (there, torch.device("cpu"))
    )
    assert found.sum() == expected.sum()
    # If two classes are equally likely, the last bit decides.
    assert abs(found - expected).sum() <= 1e-3 * expected.sum()


@on_every_device
def test_ddp_takes_the_step_of_one_process(device: str, tmp_path: Path) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
    program = str(miniature.PROJECT / "tests/training/ddp.py")
    file = tmp_path / "gradients"
    done = miniature.run(tmp_path, *torchrun, program, device, str(file), PYTHONPATH=str(miniature.PROJECT))
    assert done.returncode == 0, done.stderr[-3000:]
    alone, together = torch.load(file)
    assert alone.keys() == together.keys()
    for name, gradient in alone.items():
        torch.testing.assert_close(together[name], gradient, rtol=1e-3, atol=1e-5)


def tiny(monkeypatch: pytest.MonkeyPatch, device: str) -> Setting:
    monkeypatch.chdir(miniature.PROJECT)
    monkeypatch.setenv("ATTNFD_DEVICE", device)
    size, batch = ((257, 257), 8) if device == "cuda" else ((33, 33), 2)
    return Setting.load("shapes", "mobilenetv2", "attnfd", size, batch, rounds=5)


@on_a_gpu
def test_every_way_to_compute_the_step_runs(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tiny(monkeypatch, device)
    for variant in GPU_VARIANTS.values():
        training_step(given, variant, teacher=taught())()


@on_a_gpu
def test_a_compiled_step_is_the_plain_one(device: str) -> None:
    compiled = step("attnfd", device, "32-true", change=lambda learning: learning.compile())
    assert_close(compiled, step("attnfd", device, "32-true"), TOLERANCES["32-true"])


@on_every_device
def test_layouts_take_the_same_step(device: str) -> None:
    plain = step("attnfd", device, "32-true", lambda one: one.to(memory_format=torch.contiguous_format))
    assert_close(plain, step("attnfd", device, "32-true"), TOLERANCES["32-true"])


@on_every_device
def test_what_deterministic_kernels_cost(
    device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tiny(monkeypatch, device)
    plain = training_step(given, OURS, teacher=taught())

    def deterministic() -> None:
        torch.use_deterministic_algorithms(True, warn_only=True)
        plain()
        torch.use_deterministic_algorithms(False)

    taken = timing.take_turns({"plain": plain, "deterministic": deterministic}, rounds=5, title="kernels")
    ratio = sum(taken["deterministic"]) / sum(taken["plain"])
    with capsys.disabled():
        print(f"\n{device}: a deterministic step takes {ratio:.2f} times as long")
    assert ratio < 10


@on_a_gpu
def test_the_miniature_runs_and_cells_share_a_card(device: str, tmp_path: Path) -> None:
    project = miniature.clone(tmp_path)
    done = miniature.run(project, "dvc", "repro", ATTNFD_DEVICE=device)
    assert done.returncode == 0, done.stderr[-3000:]
    card = json.loads((project / "results/shapes/mobilenetv2/attnfd/0/metrics.json").read_text())
    assert 0 < card["miou"] < 1
    miniature.change(project, {"run": {"methods": ["none", "attnfd", "kd", "at", "cirkd", "dist"]}})
    done = miniature.run(project, "attnfd", "sweep", "--gpus-per-job", "0.25", ATTNFD_DEVICE=device)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for method in ("kd", "at", "cirkd", "dist"):
        assert (project / f"results/shapes/mobilenetv2/{method}/0/metrics.json").exists()
