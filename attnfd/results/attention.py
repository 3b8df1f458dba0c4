"""Where the attention of a network looks (paper, figure 1), and where a student agrees with its teacher."""

from collections.abc import Mapping
from typing import NamedTuple

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

FITTED = 20_000
"""About how many positions are used to fit the principal components; a large image has more."""


class Pair(NamedTuple):
    """Features (B, C, h, w) of both networks at one layer."""

    student: Tensor
    teacher: Tensor


@torch.no_grad()
def energies(
    model: Network, images: Tensor, distiller: Distiller | None = None
) -> dict[str, NDArray[np.float32]]:
    """Mean over the channels of the squared features at each tap: raw, and refined if it has attention.

    Args:
        model: a teacher with attention in its forward path, or a student.
        images: uint8 (B, 3, H, W).
        distiller: the one that trained the student; its attention refines the student's features.

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
def pairs(student: Network, teacher: Network, images: Tensor, distiller: Distiller) -> dict[str, Pair]:
    """The student's refined features and those of the teacher that they follow, as unit vectors.

    Args:
        images: uint8 (B, 3, H, W).
        distiller: the one that trained the student.

    Returns:
        A pair for each layer; empty without attention.
    """
    for network in (student, teacher, distiller):
        network.eval()
    pixels = normalize(images.to(next(student.parameters()).device))
    refined = distiller.refine(student(pixels, taps=distiller.student_taps, logits=False).taps)
    followed = distiller.followed(teacher(pixels, taps=distiller.teacher_taps, logits=False).taps)
    return {
        layer: Pair(
            *(
                F.normalize(features.float(), dim=1).cpu()
                for features in (match_size(found, followed[layer]), followed[layer])
            )
        )
        for layer, found in refined.items()
    }


def agreements(found: Mapping[str, Pair]) -> dict[str, NDArray[np.float32]]:
    """Cosine of the student's and the teacher's vectors.

    Returns:
        `student/backbone/agreement`, … → (B, h, w), from −1 to 1.
    """
    return {
        f"student/{layer}/agreement": (pair.student * pair.teacher).sum(1).numpy()
        for layer, pair in found.items()
    }


def components(found: Mapping[str, Pair]) -> dict[str, NDArray[np.uint8]]:
    """The first three principal components as red, green and blue, so that equal colours are equal features.

    The components, and their scale from the 2nd to the 98th percentile, come from the teacher's features.

    Returns:
        `teacher/backbone/components`, `student/backbone/components`, … → (B, h, w, 3).
    """
    return {
        f"{network}/{layer}/components": colours
        for layer, pair in found.items()
        for network, colours in zip(("teacher", "student"), _colours(pair), strict=True)
    }


def _colours(pair: Pair) -> list[NDArray[np.uint8]]:
    """The colours of the teacher and of the student. A single position has no components and is black."""
    from sklearn.decomposition import PCA  # This import takes a second, and few evaluations need it.

    teacher, student = (features.movedim(1, -1).numpy() for features in (pair.teacher, pair.student))
    rows = teacher.reshape(-1, teacher.shape[-1])
    if len(rows) < 2:
        return [np.zeros((*teacher.shape[:-1], 3), dtype=np.uint8)] * 2
    fitted = rows[:: max(1, len(rows) // FITTED)]
    with np.errstate(invalid="ignore"):  # If all features are equal, the explained variance is 0 / 0.
        pca = PCA(min(3, *fitted.shape), svd_solver="randomized", random_state=0).fit(fitted)
    low, high = np.percentile(pca.transform(fitted), (2, 98), axis=0)
    colours = []
    for features in (teacher, student):
        places = pca.transform(features.reshape(rows.shape)) - low
        levels = np.rint(255 * np.clip(places / np.maximum(high - low, 1e-6), 0, 1)).astype(np.uint8)
        whole = np.zeros((len(rows), 3), dtype=np.uint8)
        whole[:, : levels.shape[1]] = levels
        colours.append(whole.reshape(*teacher.shape[:-1], 3))
    return colours
