"""What float32 means on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

TF32 = "tf32"
"""The precision that is `32-true` with `allow_tf32`."""


def allow_tf32(allowed: bool) -> None:
    """Whether a GPU may round float32 factors to 10 bits, in convolutions and in products of matrices.

    PyTorch allows it in convolutions unless told not to, and then 32-true is not what its name says.
    """
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def true_float32() -> Iterator[None]:
    """No TF32 inside, whatever your process allows; its settings are back at the end.

    PyTorch has two ways to set it, and refuses to read the old one after you used the new one.
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
