"""What the attention of a network looks at (paper, figure 1), and where a student agrees with its teacher."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from attnfd.config.schema import LAYERS
from attnfd.data.transforms import normalize
from attnfd.distillers.base import Distiller, match_size
from attnfd.models.network import Network
from attnfd.models.taps import Tap


@torch.no_grad()
def energies(
    model: Network, images: Tensor, distiller: Distiller | None = None
) -> dict[str, NDArray[np.float32]]:
    """Mean over the channels of the squared features, at each tap, raw and where there is attention refined.

    Args:
        model: a teacher with attention in its forward path, or a student.
        images: uint8 (B, 3, H, W).
        distiller: what a student was trained with; its attention refines the student's features.

    Returns:
        `backbone/raw`, `backbone/refined`, … → (B, h, w).
    """
    model.eval()
    device = next(model.parameters()).device
    layers = [layer for layer in LAYERS if layer in model.info.channels]
    raw = [Tap(layer) for layer in layers]
    refined = [Tap(layer, "refined") for layer in layers if layer in model.attention]
    wanted = {*raw, *refined, *(distiller.student_taps if distiller else ())}
    taps = model(normalize(images.to(device)), taps=wanted, logits=False).taps
    maps = {f"{tap.layer}/raw": taps[tap] for tap in raw} | {
        f"{tap.layer}/refined": taps[tap] for tap in refined
    }
    if distiller is not None:
        refined_by_student = distiller.eval().refine(taps)
        maps |= {f"{layer}/refined": features for layer, features in refined_by_student.items()}
    return {name: features.float().square().mean(1).cpu().numpy() for name, features in maps.items()}


@torch.no_grad()
def agreements(
    student: Network, teacher: Network, images: Tensor, distiller: Distiller
) -> dict[str, NDArray[np.float32]]:
    """Cosine of the student's refined features and those of the teacher that they follow, over the channels.

    Args:
        images: uint8 (B, 3, H, W).
        distiller: what the student was trained with.

    Returns:
        `backbone/agreement`, … → (B, h, w), from −1 to 1; empty without attention.
    """
    for network in (student, teacher, distiller):
        network.eval()
    pixels = normalize(images.to(next(student.parameters()).device))
    refined = distiller.refine(student(pixels, taps=distiller.student_taps, logits=False).taps)
    followed = distiller.followed(teacher(pixels, taps=distiller.teacher_taps, logits=False).taps)
    cosines = {
        layer: F.cosine_similarity(match_size(features, followed[layer]), followed[layer])
        for layer, features in refined.items()
    }
    return {f"{layer}/agreement": cosine.cpu().numpy() for layer, cosine in cosines.items()}
