"""What float32 means on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

TF32 = "tf32"
"""The precision `32-true` with TF32 allowed."""


def allow_tf32(allowed: bool) -> None:
    """Allow or forbid a GPU to round float32 factors to 10 bits, in convolutions and matrix products.

    By default PyTorch allows it in convolutions, so that `32-true` would not be true float32.
    """
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def true_float32() -> Iterator[None]:
    """Forbid TF32 inside the context, and restore the settings of the process at the end.

    PyTorch has two ways to set it, and refuses to read the old one after you have used the new one.
    """
    try:
        matmul, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        with _true_float32_by_backend():
            yield
        return
    allow_tf32(False)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def _true_float32_by_backend() -> Iterator[None]:
    cudnn: Any = torch.backends.cudnn
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv)
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
