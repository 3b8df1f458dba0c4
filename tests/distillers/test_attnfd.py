import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F

from attnfd.distillers.attnfd import AttnFD, Normalize, attnfd_loss
from attnfd.errors import UserError
from attnfd.losses import kd_loss
from attnfd.models.taps import NetInfo, Output, Tap
from tests.distillers.helpers import build, random

B, C, H, W = SHAPE = 2, 3, 2, 4
STUDENT, TEACHER = random(*SHAPE, seed=1), random(*SHAPE, seed=2)
NORMALIZE = get_args(Normalize)
NO_ATTENTION = {"reduction": 16, "kernel_size": 7, "channel": False, "spatial": False}


def distance(s: NDArray, t: NDArray) -> float:
    """Squared distance of the unit vectors."""
    s_norm, t_norm = (math.sqrt(sum(value**2 for value in vector)) for vector in (s, t))
    return sum(float(a / s_norm - b / t_norm) ** 2 for a, b in zip(s, t, strict=True))


def by_loops(s: NDArray, t: NDArray, normalize: str) -> float:
    if normalize == "channel":
        return sum(distance(s[b, :, y, x], t[b, :, y, x]) for b, y, x in np.ndindex(B, H, W)) / (B * H * W)
    if normalize == "sample":
        return sum(distance(s[b].ravel(), t[b].ravel()) for b in range(B)) / B
    if normalize == "batch":
        return distance(s.ravel(), t.ravel()) / B
    return sum(float(s[i] - t[i]) ** 2 for i in np.ndindex(s.shape)) / s.size


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_value(normalize: Normalize) -> None:
    found = attnfd_loss(STUDENT, TEACHER, normalize=normalize).item()
    assert found == pytest.approx(by_loops(STUDENT.numpy(), TEACHER.numpy(), normalize), rel=1e-12)


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_gradient(normalize: Normalize) -> None:
    student = STUDENT.clone().requires_grad_()
    assert gradcheck(lambda features: attnfd_loss(features, TEACHER, normalize=normalize), student)


@pytest.mark.parametrize(
    ("normalize", "units"), [("channel", (B, 1, H, W)), ("sample", (B, 1, 1, 1)), ("batch", (1, 1, 1, 1))]
)
def test_length_of_a_unit_does_not_count(normalize: Normalize, units: tuple[int, ...]) -> None:
    lengths = random(*units).exp()
    loss = attnfd_loss(STUDENT, TEACHER, normalize=normalize)
    torch.testing.assert_close(attnfd_loss(STUDENT * lengths, TEACHER, normalize=normalize), loss)
    torch.testing.assert_close(attnfd_loss(STUDENT, TEACHER * lengths, normalize=normalize), loss)
    assert attnfd_loss(TEACHER * lengths, TEACHER, normalize=normalize).item() == pytest.approx(0, abs=1e-15)


def test_zero_for_equal_features() -> None:
    for normalize in NORMALIZE:
        assert attnfd_loss(TEACHER, TEACHER, normalize=normalize).item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(("normalize", "expected"), [("channel", 1), ("sample", 1), ("batch", 1 / B)])
def test_a_zero_vector_stays_zero(normalize: Normalize, expected: float) -> None:
    """‖0 − t̂‖² = 1; if both are zero, the loss is 0. The gradient is finite."""
    zeros = torch.zeros(SHAPE, dtype=torch.float64, requires_grad=True)
    loss = attnfd_loss(zeros, TEACHER, normalize=normalize)
    assert loss.item() == pytest.approx(expected)
    (grad,) = torch.autograd.grad(loss, zeros)
    assert grad.isfinite().all()
    assert attnfd_loss(zeros, torch.zeros_like(zeros), normalize=normalize) == 0


@pytest.mark.parametrize("normalize", ["channel", "sample", "batch"])
def test_float32_is_exact_enough_near_the_minimum(normalize: Normalize) -> None:
    """The expanded square subtracts numbers near 1. The difference must still lead to the teacher."""
    teacher = random(2, 64, 5, 5, seed=3)
    student = teacher + 0.01 * random(2, 64, 5, 5, seed=4)
    losses, grads = [], []
    for kind in (torch.float64, torch.float32):
        features = student.to(kind).requires_grad_()
        loss = attnfd_loss(features, teacher.to(kind), normalize=normalize)
        losses.append(loss.item())
        grads.append(torch.autograd.grad(loss, features)[0].double())
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert F.cosine_similarity(grads[0].flatten(), grads[1].flatten(), dim=0) > 0.9999
    assert grads[1].norm().item() == pytest.approx(grads[0].norm().item(), rel=0.01)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="same shape"):
        attnfd_loss(STUDENT, TEACHER[:, :1], normalize="channel")


LAYERS = ("backbone", "encoder", "decoder")
STUDENT_INFO = NetInfo(channels=dict.fromkeys(LAYERS, 4), classes=3)
TEACHER_INFO = NetInfo(channels=dict.fromkeys(LAYERS, 6), classes=3)
TARGET = torch.zeros(2, 8, 8, dtype=torch.long)


def attnfd(**changes: Any) -> AttnFD:
    torch.manual_seed(0)
    distiller = build("attnfd", STUDENT_INFO, TEACHER_INFO, **changes)
    assert isinstance(distiller, AttnFD)
    return distiller


def outputs(distiller: AttnFD, student_size: int = 3) -> tuple[Output, Output]:
    taps = [
        {
            tap: random(2, channels, size, size, seed=seed).float()
            for seed, tap in enumerate(sorted(wanted), start=channels)
        }
        for wanted, channels, size in (
            (distiller.student_taps, 4, student_size),
            (distiller.teacher_taps, 6, 3),
        )
    ]
    logits = [random(2, 3, 8, 8, seed=seed).float() for seed in (90, 91)]
    return Output(logits[0], taps[0]), Output(logits[1], taps[1])


def run(distiller: AttnFD, progress: float = 0, student_size: int = 3) -> dict[str, Tensor]:
    return distiller(*outputs(distiller, student_size), TARGET, progress)


@pytest.mark.parametrize("point", ["pre_relu", "post_relu"])
def test_compares_the_student_with_the_refined_teacher(point: str) -> None:
    distiller = attnfd(layers=["decoder", "backbone"], point=point)
    assert distiller.student_taps == {Tap("decoder", point), Tap("backbone", point)}  # type: ignore[arg-type]
    assert distiller.teacher_taps == {Tap("decoder", "refined"), Tap("backbone", "refined")}
    assert not distiller.teacher_logits


@pytest.mark.parametrize(("channel", "spatial"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("point", ["pre_relu", "post_relu"])
def test_gates_without_weights_refine_the_raw_teacher(point: str, channel: bool, spatial: bool) -> None:
    attention = NO_ATTENTION | {"channel": channel, "spatial": spatial}
    distiller = attnfd(
        layers=["encoder"], point=point, teacher_attention="parameter_free", attention=attention, weight=1
    )
    assert distiller.teacher_taps == {Tap("encoder", "pre_relu")}
    student, teacher = outputs(distiller)
    expected = teacher.taps[Tap("encoder")]
    if channel:
        gate = torch.sigmoid(expected.mean((2, 3)) + expected.amax((2, 3)))
        expected = expected * gate[:, :, None, None]
    if spatial:
        expected = expected * torch.sigmoid(expected.mean(1) + expected.amax(1))[:, None]
    loss = attnfd_loss(distiller.refine(student.taps)["encoder"], expected, normalize="channel")
    torch.testing.assert_close(run(distiller)["attnfd"], loss)


def test_every_layer_has_its_own_point() -> None:
    """As in the released code; a layer that is not named uses its map before the ReLU."""
    points = {"encoder": "post_relu", "decoder": "post_relu"}
    distiller = attnfd(point=points, teacher_point=points, teacher_attention="parameter_free")
    wanted = {Tap("backbone", "pre_relu"), Tap("encoder", "post_relu"), Tap("decoder", "post_relu")}
    assert distiller.student_taps == distiller.teacher_taps == wanted
    assert attnfd(point=points).teacher_taps == {Tap(layer, "refined") for layer in ("backbone", *points)}
    with pytest.raises(UserError, match="point"):
        attnfd(point={"encoder": "after"})


def test_gates_of_the_student_without_weights() -> None:
    distiller = attnfd(layers=["encoder"], attention=NO_ATTENTION | {"channel": True, "learned": False})
    bare = attnfd(layers=["encoder"], attention=NO_ATTENTION)
    bare.load_state_dict(distiller.state_dict())
    student, _ = outputs(distiller)
    connected = bare.refine(student.taps)["encoder"]
    gate = torch.sigmoid(connected.mean((2, 3)) + connected.amax((2, 3)))[:, :, None, None]
    torch.testing.assert_close(distiller.refine(student.taps)["encoder"], gate * connected)


def test_loss_is_the_sum_over_the_layers() -> None:
    distiller = attnfd(weight=10)
    student, teacher = outputs(distiller)
    refined = distiller.refine(student.taps)
    expected = 10 * sum(
        attnfd_loss(refined[layer], teacher.taps[Tap(layer, "refined")], normalize="channel")
        for layer in LAYERS
    )
    torch.testing.assert_close(run(distiller), {"attnfd": expected})


def test_without_attention_there_is_the_connector_alone() -> None:
    distiller = attnfd(layers=["encoder"], attention=NO_ATTENTION)
    shapes = {name: tuple(weight.shape) for name, weight in distiller.named_parameters()}
    assert sorted(shapes.values()) == [(6,), (6,), (6, 4, 1, 1)]
    (tap,) = distiller.student_taps
    student, _ = outputs(distiller)
    (kernel,) = [weight for weight in distiller.parameters() if weight.ndim == 4]
    connected = torch.einsum("oc,bchw->bohw", kernel[:, :, 0, 0], student.taps[tap])
    mean, var = (
        connected.mean((0, 2, 3), keepdim=True),
        connected.var((0, 2, 3), unbiased=False, keepdim=True),
    )
    expected = (connected - mean) / (var + 1e-5).sqrt()
    torch.testing.assert_close(distiller.refine(student.taps)["encoder"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("connector", ["before_attention", "after_attention"])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_a_norm_over_the_channels_cancels_spatial_gates(normalize: Normalize, connector: str) -> None:
    distiller = attnfd(normalize=normalize, connector=connector).double()
    student, teacher = (
        Output(None, {tap: feature.double() for tap, feature in output.taps.items()})
        for output in outputs(distiller)
    )
    distiller(student, teacher, TARGET, 0)["attnfd"].backward()
    largest: dict[str, float] = {"channel": 0, "spatial": 0}
    for name, weight in distiller.named_parameters():
        for gate in largest:
            if f".{gate}." in name:
                assert weight.grad is not None
                largest[gate] = max(largest[gate], weight.grad.abs().max().item())
    cancels = normalize == "channel" and connector == "before_attention"
    assert (largest["spatial"] < 1e-12) is cancels
    assert largest["channel"] > 1e-6


def test_place_of_the_connector() -> None:
    """Attention before the connector has the student's 4 channels; after it, the teacher's 6."""
    for place, channels in (("before_attention", 6), ("after_attention", 4)):
        attention = NO_ATTENTION | {"channel": True, "reduction": 2}
        distiller = attnfd(layers=["encoder"], connector=place, attention=attention)
        matrices = {tuple(weight.shape) for weight in distiller.parameters() if weight.ndim == 2}
        assert matrices == {(channels // 2, channels), (channels, channels // 2)}
        assert distiller.refine(outputs(distiller)[0].taps)["encoder"].shape == (2, 6, 3, 3)


def test_a_student_of_another_size_is_resized_to_the_teacher() -> None:
    distiller = attnfd(layers=["encoder"])
    student, teacher = outputs(distiller, student_size=5)
    resized = F.interpolate(
        distiller.refine(student.taps)["encoder"], size=(3, 3), mode="bilinear", align_corners=True
    )
    expected = attnfd_loss(resized, teacher.taps[Tap("encoder", "refined")], normalize="channel")
    torch.testing.assert_close(run(distiller, student_size=5)["attnfd"], distiller.config.weight * expected)


def test_kd_term() -> None:
    distiller = attnfd(kd_weight=2, decay=1)
    assert distiller.teacher_logits
    student, teacher = outputs(distiller)
    assert student.logits is not None
    assert teacher.logits is not None
    expected = 2 * kd_loss(student.logits, teacher.logits, TARGET, temperature=1)
    torch.testing.assert_close(run(distiller, progress=0.5)["kd"], expected)


@pytest.mark.parametrize(
    ("decay", "progress", "factor"),
    [(0, 0.99, 1), (0.25, 0, 1), (0.25, 0.75, 1), (0.25, 0.875, 0.5), (0.25, 0.95, 0.2), (1, 0.3, 0.7)],
)
def test_decay(decay: float, progress: float, factor: float) -> None:
    undecayed = run(attnfd(decay=0, weight=10))["attnfd"]
    found = run(attnfd(decay=decay, weight=10), progress)["attnfd"]
    torch.testing.assert_close(found, factor * undecayed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay": -0.5}, r"attnfd\.decay: found -0.5; allowed: .* 0"),
        ({"decay": 1.5}, r"attnfd\.decay: found 1.5; allowed: .* 1"),
        (
            {"normalize": "l2"},
            r"attnfd\.normalize: found \"l2\"; allowed: 'channel', 'sample', 'batch' or 'none'",
        ),
        ({"layers": ["encoder", "encoder"]}, r"attnfd\.layers: found .*; allowed: each layer once"),
        ({"attention": NO_ATTENTION | {"kernel_size": 4}}, r"attnfd.*kernel_size: found 4; allowed: an odd"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        attnfd(**changes)
