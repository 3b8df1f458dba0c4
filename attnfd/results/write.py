"""The files that an evaluation writes: numbers, tables and pictures. Equal results give equal bytes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from attnfd import paths
from attnfd.config.schema import Evaluate
from attnfd.data.loaders import eval_loader
from attnfd.data.prepared import Prepared
from attnfd.evaluation.inference import classify, confusion, evaluating
from attnfd.evaluation.metrics import SCORES, averages, collapsed, scores
from attnfd.evaluation.tiles import Tiles, describe
from attnfd.results import examples, pictures, style
from attnfd.results.cost import count_parameters, multiply_adds

CONFUSION_PICTURE = "confusion.png"
OVERLAYS_PICTURE = "overlays.png"
ATTENTION_PICTURE = "attention.png"
CURVES_PICTURE = "curves.png"
ATTENDED = 2
"""Number of the drawn images that are drawn with attention, too."""


class Evaluated(NamedTuple):
    """The content of `metrics.json`, and some of the drawn images: their ids, and uint8 (B, 3, H, W)."""

    metrics: dict[str, Any]
    ids: list[str]
    images: Tensor


def evaluate(model: nn.Module, prepared: Prepared, config: Evaluate, folder: str | Path) -> Evaluated:
    """Evaluate a network on the reported split, on the network's device, and write the results.

    The folder gets `metrics.json`, `per_class.csv`, `confusion.npz` (`ids`, and uint32 `matrices`, one per
    image), `confusion.png`, `predictions.npz` (class maps of the kept images, by id) and `overlays.png` (the
    drawn images). In `metrics.json`, `val` has the main scores on the validation split, which may be the
    reported split, and `multiply_adds` are those of the split's first image.
    """
    folder = Path(folder)
    device = next(model.parameters()).device
    classes = prepared.card.classes
    split = prepared.reported
    first = prepared.split(split).iloc[0]
    batches = eval_loader(prepared, split, config.batch_size, device=device)
    tiles = None if config.tile is None else Tiles(size=config.tile, overlap=config.overlap)
    if tiles is not None:
        rows = prepared.index[prepared.index["split"].isin([split, "val"])]
        sizes = list(zip(rows["height"].tolist(), rows["width"].tolist(), strict=True))
        Console(soft_wrap=True, highlight=False).print(describe(model, len(classes), tiles, sizes))
    matrices = confusion(model, track(batches, "Evaluating"), len(classes), device=device, tiles=tiles)
    found = summary(matrices, classes)
    metrics = {
        "split": split,
        **found,
        "val": {name: found[name] for name in SCORES}
        if split == "val"
        else _validate(model, prepared, config, tiles),
        "parameters": count_parameters(model),
        "multiply_adds": _multiply_adds(model, int(first["height"]), int(first["width"]), tiles),
    }
    if config.resize is not None:
        shrunk = track(batches, f"Evaluating at {config.resize}")
        resized = confusion(model, shrunk, len(classes), device=device, resize=config.resize)
        metrics["resized"] = {"short_side": config.resize, **averages(scores(resized.sum(0)))}

    kept = examples.read(prepared, examples.choose(prepared, config.kept))
    preds = _predict(model, kept.images, config.batch_size, device, tiles)
    drawn = examples.evenly(config.overlays, len(kept.ids))

    folder.mkdir(parents=True, exist_ok=True)
    write_numbers(folder, metrics, matrices, prepared)
    maps: dict[str, Any] = dict(zip(kept.ids, preds, strict=True))
    np.savez_compressed(folder / paths.PREDICTIONS, **maps)
    style.save(pictures.confusion({"": matrices.sum(0)}, classes), folder / CONFUSION_PICTURE)
    shown = kept.at(drawn)
    overlays = pictures.overlays(shown, {"prediction": preds[drawn]}, classes, prepared.card.palette)
    style.save(overlays, folder / OVERLAYS_PICTURE)
    attended = shown.at(examples.evenly(ATTENDED, len(shown.ids)))
    shown_images = torch.from_numpy(attended.images).permute(0, 3, 1, 2)
    if tiles is not None:  # Attention is drawn of a whole forward pass: here of the first tile.
        shown_images = shown_images[..., : tiles.size, : tiles.size]
    return Evaluated(metrics, attended.ids, shown_images)


def summary(matrices: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Scores of a split's confusion matrices (N, K, K), in the form of `metrics.json`."""
    matrix = matrices.sum(0)
    found = scores(matrix)
    return {
        **averages(found),
        "collapsed": collapsed(matrix),
        "images": len(matrices),
        "iou": dict(zip(classes, found["iou"], strict=True)),
    }


def write_numbers(
    folder: Path, metrics: Mapping[str, Any], matrices: NDArray[np.int64], prepared: Prepared
) -> None:
    """Write `metrics.json`, `per_class.csv` and `confusion.npz`; see `evaluate`."""
    (folder / paths.METRICS).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    matrix = matrices.sum(0)
    found = scores(matrix)
    per_class = pd.DataFrame(
        {
            "class": prepared.card.classes,
            "iou": found["iou"],
            "accuracy": found["accuracy"],
            "pixels": matrix.sum(1),
        }
    )
    per_class.to_csv(folder / paths.PER_CLASS, index=False, lineterminator="\n")
    ids = prepared.split(prepared.reported)["id"].to_numpy(dtype=str)
    np.savez_compressed(folder / paths.CONFUSION, ids=ids, matrices=matrices.astype(np.uint32))


def write_attention(
    folder: Path,
    evaluated: Evaluated,
    energies: Mapping[str, Mapping[str, NDArray[np.float32]]],
    agreements: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
    components: Mapping[str, NDArray[np.uint8]] = MappingProxyType({}),
) -> None:
    """Write `attention.npz` (`ids`, and uint8 maps by `<network>/<place>`) and `attention.png`.

    Args:
        energies: those of `evaluated.images` (B, h, w), by network and then by place in it, such as
            `encoder/refined`.
        agreements: cosines (B, h, w) by name, such as `student/encoder/agreement`.
        components: colours (B, h, w, 3) by name, such as `teacher/encoder/components`.
    """
    levels: dict[str, Any] = {
        f"{network}/{place}": pictures.brightness(energy)
        for network, of_network in energies.items()
        for place, energy in of_network.items()
    }
    for name, cosine in agreements.items():
        levels[name] = np.rint(255 * cosine.clip(0, 1)).astype(np.uint8)
    levels |= components
    np.savez_compressed(folder / paths.ATTENTION, ids=np.array(evaluated.ids), **levels)
    images = evaluated.images.permute(0, 2, 3, 1).numpy()
    style.save(pictures.attention(images, levels), folder / ATTENTION_PICTURE)


def write_curves(folder: Path, history: Path) -> None:
    """Write `curves.png` from the `history.csv` of a training."""
    style.save(pictures.curves(pd.read_csv(history)), folder / CURVES_PICTURE)


def _multiply_adds(model: nn.Module, height: int, width: int, tiles: Tiles | None) -> int:
    """The multiply-adds of an image, or of all of its tiles."""
    if tiles is None:
        return multiply_adds(model.eval(), (height, width))
    count = len(tiles.starts(height)) * len(tiles.starts(width))
    return count * multiply_adds(model.eval(), (min(height, tiles.size), min(width, tiles.size)))


def _validate(
    model: nn.Module, prepared: Prepared, config: Evaluate, tiles: Tiles | None
) -> dict[str, float]:
    """The main scores on the validation split."""
    device = next(model.parameters()).device
    batches = eval_loader(prepared, "val", config.batch_size, device=device)
    shown = track(batches, "Evaluating on val")
    matrices = confusion(model, shown, len(prepared.card.classes), device=device, tiles=tiles)
    return averages(scores(matrices.sum(0)))


def _predict(
    model: nn.Module, images: NDArray[np.uint8], batch_size: int, device: torch.device, tiles: Tiles | None
) -> NDArray[np.uint8]:
    """Class maps (B, H, W) of RGB images (B, H, W, 3)."""
    batches = torch.from_numpy(images).permute(0, 3, 1, 2).split(batch_size)
    with evaluating(model):
        return np.concatenate(
            [classify(model, batch.to(device), tiles).to("cpu", torch.uint8).numpy() for batch in batches]
        )
