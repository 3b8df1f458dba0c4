"""What float32 means on a GPU."""

import torch

TF32 = "tf32"
"""The precision that is `32-true` with `allow_tf32`."""


def allow_tf32(allowed: bool) -> None:
    """Whether a GPU may round float32 factors to 10 bits, in convolutions and in products of matrices.

    PyTorch allows it in convolutions unless told not to, and then 32-true is not what its name says.
    """
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
