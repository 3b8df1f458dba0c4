"""Properties of every method, found by its file."""

import io
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd import discovery
from attnfd.config.network import Attention
from attnfd.config.schema import LAYERS
from attnfd.distillers import cirkd
from attnfd.distillers.at import at_loss
from attnfd.distillers.base import Distiller
from attnfd.distillers.fitnet import fitnet_loss
from attnfd.distillers.overhaul import overhaul_loss
from attnfd.distillers.sp import sp_loss
from attnfd.errors import UserError
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.taps import EARLY_LAYERS, Output, Tap
from tests.distillers.helpers import CLASSES, batch, build, random, tiny_student, tiny_teacher

METHODS = discovery.names("distillers")
every_method = pytest.mark.parametrize("name", METHODS)


class Cell:
    """Student, frozen teacher and method, and a batch."""

    def __init__(
        self, name: str, *, seed: int = 0, stride: int = 4, images: int = 3, void: bool = False
    ) -> None:
        torch.manual_seed(seed)
        self.student, self.teacher = tiny_student(stride), tiny_teacher()
        self.distiller = build(name, self.student.info, self.teacher.info)
        self.images, self.target = batch(images)
        if void:
            self.target.fill_(255)

    @property
    def parts(self) -> nn.ModuleList:
        return nn.ModuleList([self.student, self.distiller])

    def outputs(self) -> tuple[Output, Output]:
        return forward(self.student, self.teacher, self.distiller, self.images)

    def terms(self, progress: float = 0) -> dict[str, Tensor]:
        student, teacher = self.outputs()
        terms = self.distiller(student, teacher, self.target, progress)
        return {"ce": cross_entropy(student, self.target), **terms}

    def train(self, steps: int, without: str = "") -> list[float]:
        """Losses of SGD on the batch, divided by the first one: the weights of the methods differ much."""
        optimizer = torch.optim.SGD(self.parts.parameters(), lr=0.01, momentum=0.9)
        losses: list[float] = []
        for _ in range(steps):
            loss = total({term: value for term, value in self.terms().items() if term != without})
            losses.append(loss.item())
            optimizer.zero_grad()
            (loss / losses[0]).backward()
            nn.utils.clip_grad_norm_(self.parts.parameters(), 1)
            optimizer.step()
        return losses


def forward(
    student: nn.Module, teacher: nn.Module, distiller: Distiller, images: Tensor
) -> tuple[Output, Output]:
    """A distiller's inputs in the training loop: only the taps and logits that it reads."""
    with torch.no_grad():
        taught = teacher(images, taps=distiller.teacher_taps, logits=distiller.teacher_logits)
    return student(images, taps=distiller.student_taps), taught


def cross_entropy(student: Output, target: Tensor) -> Tensor:
    assert student.logits is not None
    return F.cross_entropy(student.logits, target, ignore_index=255, reduction="sum") / target.numel()


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    return {name: weight.grad for name, weight in module.named_parameters()}


@every_method
@pytest.mark.parametrize("stride", [4, 8], ids=["same size", "smaller student"])
def test_terms_are_finite_scalars_with_finite_gradients(name: str, stride: int) -> None:
    cell = Cell(name, stride=stride)
    terms = cell.terms()
    assert all(term.ndim == 0 and term.isfinite() for term in terms.values())
    total(terms).backward()
    assert all(grad is None or grad.isfinite().all() for grad in gradients(cell.parts).values())


FACTORS = [
    (name, field)
    for name in METHODS
    if name != "none"
    for field, about in discovery.component("distillers", name).Config.model_fields.items()
    if (about.description or "").startswith("factor")
]


@pytest.mark.parametrize(("name", "field"), FACTORS)
def test_a_factor_multiplies_its_terms_and_leaves_the_others(name: str, field: str) -> None:
    found = []
    for factor in (0.75, 1.5, 3.0):
        cell = Cell(name)
        torch.manual_seed(0)
        cell.distiller = build(name, cell.student.info, cell.teacher.info, **{field: factor})
        cell.terms()  # Fills queues.
        torch.manual_seed(0)
        found.append({term: value.item() for term, value in cell.terms().items()})
    low, middle, high = found
    ratios = {term: (middle[term] / low[term], high[term] / middle[term]) for term in low if low[term]}
    scaled = [term for term, pair in ratios.items() if pair == pytest.approx((2, 2), rel=1e-4)]
    assert scaled
    assert "ce" not in scaled
    for term in ratios.keys() - scaled:
        assert ratios[term] == pytest.approx((1, 1), rel=1e-4)


TEMPERATURES = [
    (name, field)
    for name in METHODS
    for field in discovery.component("distillers", name).Config.model_fields
    if field == "tau" or field.endswith("temperature")
]


@pytest.mark.parametrize(("name", "field"), TEMPERATURES)
def test_a_temperature_may_be_small_but_not_zero(name: str, field: str) -> None:
    cell = Cell(name)
    build(name, cell.student.info, cell.teacher.info, **{field: 1e-3})
    with pytest.raises(UserError, match=field):
        build(name, cell.student.info, cell.teacher.info, **{field: 0})


@pytest.mark.parametrize("name", ["at", "sp", "kd", "cwd", "dist"])
def test_what_needs_no_common_channels_trains_nothing_of_its_own(name: str) -> None:
    assert not list(Cell(name).distiller.parameters())


@every_method
def test_only_none_adds_nothing(name: str) -> None:
    assert (len(Cell(name).terms()) == 1) == (name == "none")


@every_method
@pytest.mark.filterwarnings("ignore:sp. the loss of a batch of one")
@pytest.mark.parametrize(("images", "void"), [(1, False), (3, True)], ids=["one image", "all void"])
def test_odd_batches_are_finite(name: str, images: int, void: bool) -> None:
    cell = Cell(name, images=images, void=void)
    loss = total(cell.terms())
    assert loss.isfinite()
    loss.backward()
    assert all(grad is None or grad.isfinite().all() for grad in gradients(cell.parts).values())


@every_method
def test_features_of_zeros_are_finite(name: str) -> None:
    cell = Cell(name)
    outputs = [
        Output(
            None if output.logits is None else torch.zeros_like(output.logits).requires_grad_(),
            {tap: torch.zeros_like(feature).requires_grad_() for tap, feature in output.taps.items()},
        )
        for output in cell.outputs()
    ]
    terms = cell.distiller(*outputs, cell.target, 0)
    leaves = [feature for feature in (outputs[0].logits, *outputs[0].taps.values()) if feature is not None]
    assert all(term.isfinite() for term in terms.values())
    for grad in torch.autograd.grad(total(terms), leaves, allow_unused=True) if terms else ():
        assert grad is None or grad.isfinite().all()


@every_method
def test_teacher_is_left_alone(name: str) -> None:
    cell = Cell(name)
    student, teacher = cell.outputs()
    before = deepcopy(teacher)
    weights = deepcopy(cell.teacher.state_dict())
    total(
        {"ce": cross_entropy(student, cell.target), **cell.distiller(student, teacher, cell.target, 0)}
    ).backward()
    for tap, feature in teacher.taps.items():
        assert not feature.requires_grad
        torch.testing.assert_close(feature, before.taps[tap], rtol=0, atol=0)
    if teacher.logits is not None:
        assert before.logits is not None
        torch.testing.assert_close(teacher.logits, before.logits, rtol=0, atol=0)
    assert all(grad is None for grad in gradients(cell.teacher).values())
    torch.testing.assert_close(cell.teacher.state_dict(), weights, rtol=0, atol=0)


@every_method
def test_every_parameter_learns(name: str) -> None:
    cell = Cell(name)
    cell.train(1)  # A queue may have to fill before its projector is used.
    cell.parts.zero_grad(set_to_none=True)
    total(cell.terms()).backward()
    idle = [key for key, grad in gradients(cell.parts).items() if grad is None or not grad.any()]
    assert not idle


@every_method
def test_same_seed_same_losses(name: str) -> None:
    assert Cell(name).train(3) == Cell(name).train(3)


@every_method
def test_continues_from_its_state(name: str) -> None:
    cell, other = Cell(name), Cell(name, seed=1)
    cell.train(2)
    file = io.BytesIO()
    torch.save(cell.parts.state_dict(), file)
    file.seek(0)
    other.teacher = cell.teacher
    other.parts.load_state_dict(torch.load(file, weights_only=True))
    losses = []
    for continued in (cell, other):
        torch.manual_seed(5)
        losses.append({term: value.item() for term, value in continued.terms().items()})
    assert losses[0] == losses[1]


@every_method
def test_contains_nothing_of_the_networks(name: str) -> None:
    cell = Cell(name)
    keys = set(cell.student.state_dict())
    cell.train(1)
    assert set(cell.student.state_dict()) == keys
    networks = {
        value.data_ptr() for net in (cell.student, cell.teacher) for value in net.state_dict().values()
    }
    assert not [key for key, value in cell.distiller.state_dict().items() if value.data_ptr() in networks]


@every_method
def test_loss_falls_on_one_batch(name: str) -> None:
    losses = Cell(name).train(20, without="" if name == "none" else "ce")
    assert losses[-1] < 0.9 * losses[0]


@every_method
def test_bfloat16_stays_near_float32(name: str) -> None:
    cell = Cell(name)
    student, teacher = cell.outputs()
    torch.manual_seed(0)
    exact = deepcopy(cell.distiller)(student, teacher, cell.target, 0)
    half = [
        Output(
            None if output.logits is None else output.logits.bfloat16(),
            {tap: feature.bfloat16() for tap, feature in output.taps.items()},
        )
        for output in (student, teacher)
    ]
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        terms = cell.distiller(*half, cell.target, 0)
    for term, value in terms.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[term], rtol=0.05, atol=1e-3)


LOSSES: list[tuple[str, Callable[[Tensor, Tensor], Tensor]]] = [
    ("at", at_loss),
    ("sp", sp_loss),
    ("fitnet", fitnet_loss),
    ("overhaul", lambda s, t: overhaul_loss(s, t, -torch.ones_like(t[0, :, 0, 0]))),
    ("cirkd", lambda s, t: (cirkd.unit(s) * cirkd.unit(t)).square().sum()),
    ("cirkd", lambda s, t: cirkd.batch_loss(s, t, torch.ones(2, 3, 5, dtype=torch.bool), temperature=0.1)),
    ("cirkd", lambda s, t: cirkd.memory_loss(s[..., 0, 0], t[..., 0, 0], t[..., 1, 1], temperature=0.1)),
]


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize(("name", "loss"), LOSSES)
def test_a_loss_of_16_bit_features_is_computed_in_32(
    name: str, loss: Callable[[Tensor, Tensor], Tensor], autocast: bool
) -> None:
    student, teacher = (random(2, 4, 3, 5, seed=seed).bfloat16() for seed in (1, 2))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = loss(student, teacher)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss(student.double(), teacher.double()).item(), rel=1e-5)


@cache
def real_outputs(backbone: str) -> tuple[DeepLabV3Plus, Output, Tensor]:
    """A network's output, in which every tap is a leaf of the graph, and the labels."""
    torch.manual_seed(0)
    attention = None
    if backbone == "teacher":
        attention = Attention(reduction=16, kernel_size=7, channel=True, spatial=True)
    net = DeepLabV3Plus("resnet18" if attention else backbone, CLASSES, attention=attention)
    images, target = batch(images=2, size=32)
    wanted = [Tap(layer) for layer in (*EARLY_LAYERS, *LAYERS)] + [
        Tap(layer, "post_relu") for layer in LAYERS
    ]
    if attention:
        wanted += [Tap(layer, "refined") for layer in LAYERS]
    with torch.no_grad():
        logits, taps = net(images, taps=wanted)
    assert logits is not None
    if attention is None:
        for feature in (logits, *taps.values()):
            feature.requires_grad_()
    return net, Output(logits, taps), target


@every_method
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv2"])
def test_fits_the_real_networks(name: str, backbone: str) -> None:
    student, own, target = real_outputs(backbone)
    teacher, taught, _ = real_outputs("teacher")
    margins = {layer: -torch.ones(count) for layer, count in teacher.info.channels.items()}
    distiller = build(name, student.info, replace(teacher.info, margins=margins))
    terms = distiller(own, taught, target, 0)
    if terms:
        leaves = [feature for feature in (own.logits, *own.taps.values()) if feature is not None]
        found = torch.autograd.grad(total(terms), leaves, allow_unused=True)
        assert total(terms).isfinite()
        assert any(grad is not None and grad.any() for grad in found)
