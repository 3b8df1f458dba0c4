"""Faults that only a GPU shows, tested without one: tensors on two devices, and waits of the host."""

import os
import signal
import warnings
from collections.abc import Callable, Container, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric.accelerators import CPUAccelerator
from lightning_fabric.strategies import SingleDeviceStrategy
from PIL import Image
from torch import nn

from attnfd import discovery
from attnfd.config.network import Attention
from attnfd.config.params import load_params
from attnfd.config.schema import LAYERS, Student
from attnfd.config.section import validate
from attnfd.data import transforms
from attnfd.data.loaders import eval_loader
from attnfd.data.prepared import Prepared
from attnfd.deploy.predict import predict
from attnfd.deploy.source import Model
from attnfd.errors import StoppedError
from attnfd.evaluation.inference import confusion, confusion_matrices
from attnfd.models import checkpoint
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.frozen import compare, freeze
from attnfd.models.kernels import cast_weights
from attnfd.models.network import Network, merge_classes
from attnfd.networks import module
from attnfd.networks.base import make_network
from attnfd.results import write
from attnfd.results.attention import agreements, energies, pairs
from attnfd.runtime.fabric import start_fabric
from attnfd.training import loop, meter
from attnfd.training.checkpoints import Checkpoints
from attnfd.training.objective import Objective
from attnfd.training.randomness import random_state
from attnfd.training.state import Trainee, TrainState
from tests.data import trees
from tests.deploy.conftest import LEGEND
from tests.pretend_gpu import CUDA, DeviceMismatchError, PretendGpu, Wait, pretend_gpu
from tests.training.test_training import Curves

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")
METHODS = sorted(discovery.names("distillers"))
BACKBONES = sorted({PARAMS.student(name).backbone for name in PARAMS.raw["students"]})
PAIRS = [
    *((method, PARAMS.student(student).backbone) for method in METHODS for student in PARAMS.run.students),
    *(("attnfd", backbone) for backbone in BACKBONES),
]
"""A method sees of a student its maps and their channels, so for other students one method is enough."""
CLASSES = 11
STEPS = 3
OTHERS: dict[str, dict[str, Any]] = {
    "smp": {"network": "smp", "architecture": "FPN", "encoder": "mobilenet_v2"},
    "module": {
        "network": "module",
        "build": "tests.networks.zoo:odd",
        "taps": {"backbone": "body", "encoder": "neck", "decoder": "last"},
    },
}
"""A network of every other kind. It gives maps like any network, so two methods are enough."""

IN_A_STEP: dict[str, dict[Wait, str]] = {}
"""What a step of a method may wait for, and why it has to. No method has to."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[PretendGpu]:
    """A pretend GPU that Fabric uses as its device."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNFD_DEVICE", "cpu")
    monkeypatch.setenv("ATTNFD_CHECKPOINT_SECONDS", "1000")
    monkeypatch.setattr(SingleDeviceStrategy, "root_device", CUDA)
    monkeypatch.setattr(CPUAccelerator, "setup_device", lambda *_: None)
    for name in ("reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda _: 0)
    transforms._statistics.cache_clear()
    with warnings.catch_warnings(), pretend_gpu() as there:
        warnings.filterwarnings("ignore", "User provided device_type of 'cuda'")
        warnings.filterwarnings("ignore", "'pin_memory' argument is set")
        yield there
    transforms._statistics.cache_clear()
    transforms._statistics(torch.device("cpu"))


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    monkeypatch.chdir(tmp_path)
    return trees.prepared_tree(tmp_path / "tree", {"train": ((40, 40),) * 2 * STEPS, "val": ((40, 48),) * 2})


@cache
def network(backbone: str, attention: bool = False) -> DeepLabV3Plus:
    """A network on the CPU; building it takes longer than training it."""
    torch.manual_seed(0)
    return DeepLabV3Plus(backbone, classes=CLASSES, attention=Attention() if attention else None)


@cache
def other(kind: str, attention: bool = False) -> Network:
    """A network of another kind on the CPU; the test is skipped if its library is not installed."""
    if kind == "smp":
        pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "FOLDER", "tests.networks")
        config = validate(Student, OTHERS[kind], kind)
        return make_network(config, CLASSES, attention=Attention() if attention else None)


def objective(method: str, student: str) -> Objective:
    """A student with a frozen teacher; every call gives the same weights."""
    return beside(method, network("mobilenetv2", attention=True), network(student))


def beside(method: str, teaches: Network, learns: Network) -> Objective:
    """Copies of two networks, the first one frozen; every call gives the same weights."""
    teacher, model = freeze(deepcopy(teaches).eval()), deepcopy(learns)
    torch.manual_seed(0)
    distiller = discovery.component("distillers", method)(model, teacher, PARAMS.method(method, "shapes"))
    fabric = start_fabric("32-true")
    cast_weights(teacher.to(fabric.device), fabric)
    return Objective(model, distiller, teacher)


def fit(trained: Objective, prepared: Prepared) -> pd.DataFrame:
    settings = trees.training(batch_size=2, crop=(33, 33), lr=0.01, epochs=1)
    trainee = Trainee(trained, Curves(), "test", Checkpoints(Path("stopped")), random_state())
    return loop.fit(trainee, prepared, settings, seed=3, fabric=start_fabric("32-true"))


@pytest.fixture
def in_steps(gpu: PretendGpu, monkeypatch: pytest.MonkeyPatch) -> list[Wait]:
    """The waits of a training's steps, from the first batch of an epoch to its last update."""
    waited: list[Wait] = []
    start, end = meter.Meter.start_epoch, TrainState.end_epoch

    def starting(self: meter.Meter) -> None:
        start(self)
        gpu.waits.clear()

    def ending(self: TrainState, validation: Any) -> None:
        waited.extend(gpu.waits)
        end(self, validation)

    monkeypatch.setattr(meter.Meter, "start_epoch", starting)
    monkeypatch.setattr(TrainState, "end_epoch", ending)
    return waited


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    take = TrainState.step

    def stepping(self: TrainState, *batch: torch.Tensor) -> None:
        take(self, *batch)
        if self.done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainState, "step", stepping)


def check_training(
    made: Callable[[], Objective],
    prepared: Prepared,
    waits: list[Wait],
    allowed: Container[Wait],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A training stops after two steps and resumes; its steps have no other waits."""
    with monkeypatch.context() as patched:
        stop_after(2, patched)
        with pytest.raises(StoppedError, match="SIGTERM after step 2 of 3"):
            fit(made(), prepared)
    trained = made()
    history = fit(trained, prepared)
    assert np.isfinite(history[["loss", "ce", "miou"]]).all(axis=None)
    assert {parameter.device for parameter in trained.parameters()} == {CUDA}
    assert not [wait for wait in waits if wait not in allowed]


@pytest.mark.parametrize(("method", "student"), dict.fromkeys(PAIRS))
def test_a_method_trains_and_resumes_within_an_epoch(
    method: str,
    student: str,
    prepared: Prepared,
    in_steps: list[Wait],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allowed = IN_A_STEP.get(method, {})
    check_training(lambda: objective(method, student), prepared, in_steps, allowed, monkeypatch)


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("method", ["attnfd", "kd"])
def test_a_network_of_another_kind_learns_and_teaches(
    method: str, kind: str, prepared: Prepared, in_steps: list[Wait], monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> Objective:
        return beside(method, other(kind, attention=True), other(kind))

    check_training(made, prepared, in_steps, IN_A_STEP.get(method, {}), monkeypatch)


@pytest.mark.parametrize("kind", OTHERS)
def test_a_network_of_another_kind_is_evaluated_frozen_and_predicts(
    kind: str, gpu: PretendGpu, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher = (deepcopy(other(kind, attention=own)).eval() for own in (False, True))
    check_after_training(student, teacher, prepared, tmp_path, monkeypatch)


def test_what_comes_after_the_training_mixes_no_devices(
    gpu: PretendGpu, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher = (deepcopy(network("mobilenetv2", attention=own)).eval() for own in (False, True))
    check_after_training(student, teacher, prepared, tmp_path, monkeypatch)


def check_after_training(
    student: Network, teacher: Network, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The counter splits operations differently for tensors that report the CPU.
    monkeypatch.setattr(write, "multiply_adds", lambda *_: 0)
    device = start_fabric("32-true").device
    assert device == CUDA
    live = deepcopy(teacher).to(device)
    folded = freeze(live)
    assert next(folded.parameters()).device == CUDA
    batch = transforms.normalize(torch.randint(256, (2, 3, 33, 41), dtype=torch.uint8).to(device))
    assert max(compare(live, folded, batch).values()) < 1e-3

    distiller = discovery.component("distillers", "attnfd")(
        student, folded, PARAMS.method("attnfd", "shapes")
    )
    distiller.to(device)
    settings = PARAMS.evaluate("shapes").model_copy(update={"resize": 33})
    evaluated = write.evaluate(student.to(device), prepared, settings, tmp_path / "results")
    assert evaluated.metrics["resized"]["short_side"] == 33
    for found in (energies(folded, evaluated.images), energies(student, evaluated.images, distiller)):
        assert set(found) == {f"{layer}/{kind}" for layer in LAYERS for kind in ("raw", "refined")}
    agreed = agreements(pairs(student, folded, evaluated.images, distiller))
    assert set(agreed) == {f"student/{layer}/agreement" for layer in LAYERS}

    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "black.png")
    legend = LEGEND.model_copy(update={"classes": ("x",) * CLASSES, "palette": ((0, 0, 0),) * CLASSES})
    model = Model("student", student, legend, {}, None)
    assert (
        predict(
            model,
            [str(tmp_path / "black.png")],
            tmp_path / "out",
            batch_size=1,
            overlays=True,
            overwrite=False,
        )
        == 1
    )
    assert model.predict(tmp_path / "black.png").classes.shape == (20, 30)
    averaged = model.predict(tmp_path / "black.png", flip=True, scales=(0.75, 1, 1.5), probabilities=True)
    assert averaged.probabilities is not None
    assert averaged.probabilities.shape == (CLASSES, 20, 30)


def test_an_evaluation_waits_at_its_end_alone(gpu: PretendGpu, prepared: Prepared) -> None:
    model = deepcopy(network("mobilenetv2")).to(CUDA)
    transforms._statistics(CUDA)
    gpu.waits.clear()
    confusion(model, eval_loader(prepared, "val", 1, device=CUDA), CLASSES, device=CUDA)
    assert gpu.waits == [Wait("copy to the host", "evaluation/inference.py:confusion")]


def test_a_saved_network_is_read_on_the_cpu(gpu: PretendGpu, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, deepcopy(network("mobilenetv2")).to(CUDA), {})
    model, _ = checkpoint.load(tmp_path)
    assert next(model.parameters()).device == torch.device("cpu")


def test_exact_sums_warn_of_nothing(gpu: PretendGpu) -> None:
    classes = torch.zeros(1, 4, 4, dtype=torch.long).to(CUDA)
    start_fabric("32-true", deterministic=True)
    confusion_matrices(classes, classes, 2)
    assert torch.are_deterministic_algorithms_enabled()
    assert not gpu.warnings
    torch.zeros(3, device=CUDA).scatter_add_(
        0, torch.zeros(3, dtype=torch.long).to(CUDA), torch.ones(3, device=CUDA)
    )
    assert gpu.warnings
    start_fabric("32-true")


def test_classes_are_merged_without_a_wait(gpu: PretendGpu) -> None:
    shares = torch.tensor([0.5, 0.2, 0.3]).to(CUDA)
    gpu.waits.clear()
    merged = merge_classes(shares.log().view(1, 3, 1, 1), ((2,), (0, 1)))
    assert not gpu.waits
    assert merged.exp().flatten().tolist() == pytest.approx([0.3, 0.7])


WAITS = {
    "a number": (lambda x: x.sum().item(), "_local_scalar_dense"),
    "a truth": (lambda x: bool(x.any()), "_local_scalar_dense"),
    "a list": (lambda x: x.tolist(), "tolist"),
    "places": (lambda x: x.nonzero(), "nonzero"),
    "a mask": (lambda x: x[x > 0], "index by a mask"),
    "what a mask changes": (lambda x: x.__setitem__(x > 0, torch.ones_like(x)[x > 0]), "index by a mask"),
    "a copy": (lambda x: x.cpu(), "copy to the host"),
    "a copy there": (lambda x: torch.zeros(3).to(x.device), "copy to the GPU"),
    "constants": (lambda x: torch.tensor([1.0, 2.0], device=x.device), "copy to the GPU"),
    "counts": (lambda x: x.long().bincount(), "bincount"),
    "repeats": (lambda x: x.repeat_interleave(x.long()), "repeat_interleave"),
    "what is different": (lambda x: x.unique(), "_unique2"),
    "an index of the host": (lambda x: x[torch.tensor([0, 1])], "copy of an index to the GPU"),
}


@pytest.mark.parametrize("what", WAITS)
def test_the_pretend_gpu_notes_a_wait(what: str, gpu: PretendGpu) -> None:
    call, operation = WAITS[what]
    there = torch.ones(3, device=CUDA)
    call(there)
    assert operation in [wait.operation for wait in gpu.waits]


def test_the_pretend_gpu_computes_without_a_wait_what_has_one_size(gpu: PretendGpu) -> None:
    here = torch.arange(6.0)
    there = here.to(CUDA, non_blocking=True).requires_grad_()
    assert there.device == CUDA
    masked = there.where(there > 2, 0).masked_fill(there > 4, 1)
    (masked.square().sum() * 2).backward()
    assert not gpu.waits
    assert there.grad is not None
    assert there.grad.device == CUDA
    assert there.grad.tolist() == [0, 0, 0, 12, 16, 0]


def test_the_pretend_gpu_refuses_what_a_gpu_refuses(gpu: PretendGpu) -> None:
    there = torch.ones(3, device=CUDA)
    for mixed in (lambda: there + torch.ones(3), lambda: torch.stack([torch.ones(3), there])):
        with pytest.raises(DeviceMismatchError, match="CPU"):
            mixed()
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    assert (there + torch.tensor(2.0)).tolist() == [3, 3, 3]
    assert (there.cpu() + torch.ones(3)).device == torch.device("cpu")


def test_a_networks_parameters_move_and_learn_there(gpu: PretendGpu) -> None:
    layer = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, fused=True)
    layer.to(CUDA)
    before = layer.weight.detach().clone()
    layer(torch.ones(4, 2, device=CUDA)).sum().backward()
    optimizer.step()
    assert layer.weight.device == before.device == CUDA
    assert not torch.equal(before.cpu(), layer.weight.detach().cpu())
