"""Losses, and parts of them, that more than one method uses."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from attnfd.data.labels import VOID

Loss = TypeVar("Loss", bound=Callable[..., Any])


def full_precision(loss: Loss) -> Loss:
    """Run a loss outside autocast, 16-bit tensors as float32: sums of squares need the digits.

    The device is that of the first tensor; float64 stays float64.
    """

    def widen(value: Any) -> Any:
        half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
        return value.float() if half else value

    @wraps(loss)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        device = next((tensor.device.type for tensor in tensors), "cpu")
        with torch.autocast(device, enabled=False):
            return loss(*map(widen, args), **{key: widen(value) for key, value in kwargs.items()})

    return wrapper  # type: ignore[return-value]


def same_shape(student: Tensor, teacher: Tensor) -> None:
    """Refuse what broadcasting would let pass.

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have the same shape"
        )


EPS = 1e-6
"""Smallest norm that a loss divides by: a vector of zeros stays one, and its gradient stays bounded."""


def unit_distance(student: Tensor, teacher: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Squared distance of unit vectors, `‖s/max(‖s‖, ε) − t/max(‖t‖, ε)‖²`.

    Written out as `‖ŝ‖² + ‖t̂‖² − 2 ŝ·t̂` (2 − 2 cos, unless a vector is zero): the normalised maps are never
    stored.

    Args:
        student: (…)
        teacher: the same shape.
        dim: the dimensions that make up a vector; the result has the others.
    """
    s_norm, t_norm = (torch.linalg.vector_norm(x, dim=dim) for x in (student, teacher))
    s_scale, t_scale = s_norm.clamp_min(EPS), t_norm.clamp_min(EPS)
    dot = (student * teacher).sum(dim) / (s_scale * t_scale)
    return (s_norm / s_scale).square() + (t_norm / t_scale).square() - 2 * dot


@full_precision
def kd_loss(student: Tensor, teacher: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    r"""Mean over pixels of `T²·KL(softmax(t/T) ‖ softmax(s/T))`.

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, sec. 2; T² makes up for
    the gradient, which falls as 1/T².

    Args:
        student: logits (B, K, H, W).
        teacher: logits (B, K, H, W).
        target: labels (B, H, W); void pixels (255) count nowhere, a batch of void alone gives 0.
        temperature: T > 0.

    Raises:
        ValueError: the shapes of student and teacher differ.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 2, 1, 1), torch.tensor([3.0, 1.0]).log().view(1, 2, 1, 1)
        >>> loss = kd_loss(student, teacher, torch.tensor([[[0]]]), temperature=1)
        >>> f"{loss:.4f}"  # ¾ log(¾ / ½) + ¼ log(¼ / ½)
        '0.1308'
    """
    same_shape(student, teacher)
    log_student, log_teacher = ((x / temperature).log_softmax(dim=1) for x in (student, teacher))
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1)
    valid = target != VOID
    return temperature**2 * divergence.where(valid, 0).sum() / valid.sum().clamp_min(1)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels that are not void; 0 where all are.

    Args:
        logits: (B, K, H, W).
        target: labels (B, H, W), 255 = void.
    """
    # By rows of classes: channels-last logits lie so already, and would be copied otherwise.
    rows = logits.float().permute(0, 2, 3, 1).flatten(0, 2)
    total = F.cross_entropy(rows, target.flatten(), ignore_index=VOID, reduction="sum")
    return total / (target != VOID).sum().clamp(min=1)
