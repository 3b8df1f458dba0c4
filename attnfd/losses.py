"""Losses and helpers that more than one method uses."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from attnfd.data.labels import VOID

Loss = TypeVar("Loss", bound=Callable[..., Any])


def full_precision(loss: Loss) -> Loss:
    """Run a loss without autocast, and convert 16-bit tensors to float32: sums of squares need the precision.

    Autocast is turned off on the device of the first tensor. float64 stays float64.
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
    """Check that the shapes are equal, because broadcasting would hide a difference.

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have the same shape"
        )


EPS = 1e-6
"""Smallest divisor of a normalisation: a vector of zeros stays zero, and its gradient stays bounded."""


def unit_distance(student: Tensor, teacher: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Squared distance of unit vectors, `‖s/max(‖s‖, ε) − t/max(‖t‖, ε)‖²`.

    Computed as `‖ŝ‖² + ‖t̂‖² − 2 ŝ·t̂` (2 − 2 cos, unless a vector is zero), without storing the normalised
    maps.

    Args:
        student: (…)
        teacher: the same shape.
        dim: the dimensions of a vector; the result has the other dimensions.
    """
    s_norm, t_norm = (torch.linalg.vector_norm(x, dim=dim) for x in (student, teacher))
    s_scale, t_scale = s_norm.clamp_min(EPS), t_norm.clamp_min(EPS)
    dot = (student * teacher).sum(dim) / (s_scale * t_scale)
    return (s_norm / s_scale).square() + (t_norm / t_scale).square() - 2 * dot


@full_precision
def kd_loss(student: Tensor, teacher: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    r"""Mean over pixels of `T²·KL(softmax(t/T) ‖ softmax(s/T))`.

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, sec. 2. The factor T²
    compensates for the gradient, which is proportional to 1/T².

    Args:
        student: logits (B, K, H, W).
        teacher: logits (B, K, H, W).
        target: labels (B, H, W); void pixels (255) do not count; a batch with only void gives 0.
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


ROW = 16
"""Number of float32 values in the longest vector of a CPU (AVX-512)."""


def to_rows(maps: Tensor) -> Tensor:
    """Maps (B, K, H, W) as rows (B·H·W, K)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels that are not void; 0 if all are void.

    Args:
        logits: (B, K, H, W).
        target: labels (B, H, W), 255 = void.
    """
    # Both orders give the same values. Over rows of 16 values or more, a CPU computes a softmax with vectors,
    # and channels-last logits need no copy. Over shorter rows it does not, and maps are faster.
    maps = logits.float()
    short = logits.shape[1] < ROW
    log_shares = to_rows(maps.log_softmax(1)) if short else to_rows(maps).log_softmax(1)
    total = F.nll_loss(log_shares, target.flatten(), ignore_index=VOID, reduction="sum")
    return total / (target != VOID).sum().clamp(min=1)


@full_precision
def hard_cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, *, share: float = 1
) -> Tensor:
    r"""Cross-entropy with class weights, over the pixels with the largest loss (OHEM).

    `S` contains, of the N pixels that are not void, the ⌈share·N⌉ with the largest `w_y·ce`:

    .. math:: \frac{\sum_{i \in S} w_{y_i}\,\text{ce}_i}{\sum_{i \in S} w_{y_i}}

    Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining", 2016, choose
    regions in this way.

    Args:
        logits: (B, K, H, W).
        target: labels (B, H, W), 255 = void; a batch with only void gives 0.
        weights: class weights (K,); None: 1 for each class.
        share: 0 < share ≤ 1.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0], [0.0, 3.0]]).log_softmax(1).view(2, 2, 1, 1)
        >>> target, weights = torch.zeros(2, 1, 1, dtype=torch.long), torch.ones(2)
        >>> f"{hard_cross_entropy(logits, target, weights, share=0.5):.4f}"  # log(1 + e³), the harder one
        '3.0486'
    """
    losses = F.cross_entropy(logits, target, ignore_index=VOID, reduction="none").flatten()
    valid = target.flatten() != VOID
    classes = target.flatten().where(valid, 0)
    weight = valid.to(losses.dtype) if weights is None else weights.to(losses.dtype)[classes] * valid
    if share < 1:
        # Compares ranks on the device: if the host needed the number of pixels, it would have to wait.
        order = (weight * losses.detach()).argsort(descending=True, stable=True)
        ranks = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        weight = weight * (ranks < torch.ceil(share * valid.sum()))
    total = weight.sum()
    return (weight * losses).sum() / total.where(total > 0, 1)


@full_precision
def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    r"""One minus the mean soft Dice of the classes that occur in a batch.

    With probabilities `p` and one-hot labels `y`, summed over all pixels i that are not void; C are the
    classes that occur. Milletari et al., 2016, "V-Net", use squares in the denominator:

    .. math:: 1 - \frac{1}{|C|}\sum_{k \in C} \frac{2\sum_i p_{ik} y_{ik}}{\sum_i p_{ik} + \sum_i y_{ik}}

    Args:
        logits: (B, K, H, W).
        target: labels (B, H, W), 255 = void; a batch with only void gives 0.

    Example:
        >>> logits = torch.zeros(1, 2, 1, 2)  # every probability is ½
        >>> f"{dice_loss(logits, torch.tensor([[[0, 1]]])):.4f}"  # 1 − 2·½ / (1 + 1)
        '0.5000'
    """
    valid = target != VOID
    probabilities = logits.softmax(1) * valid[:, None]
    classes = torch.arange(logits.shape[1], device=logits.device)
    one_hot = (target[..., None] == classes).to(logits.dtype).movedim(-1, 1)
    there = one_hot.sum((0, 2, 3))
    dice = (
        2 * (probabilities * one_hot).sum((0, 2, 3)) / (probabilities.sum((0, 2, 3)) + there).clamp_min(EPS)
    )
    occurs = there > 0
    return (1 - dice).where(occurs, 0).sum() / occurs.sum().clamp_min(1)
