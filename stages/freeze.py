"""freeze: write the teacher as one self-contained artefact that every student cell reads."""

from collections.abc import Sequence

import torch

from attnfd import paths
from attnfd.config.task import Task
from attnfd.data.loaders import eval_loader
from attnfd.data.prepared import open_prepared
from attnfd.data.transforms import normalize
from attnfd.errors import UserError
from attnfd.models import checkpoint, frozen
from attnfd.models.checkpoint import legend
from attnfd.models.taps import Tap


def freeze(tasks: Sequence[Task]) -> list[float]:
    """Fold and freeze each trained teacher. Write it if its outputs are still the same.

    Returns:
        For each task, the largest relative difference between the frozen and the live teacher.

    Raises:
        UserError: an output or a tap differs by more than `freeze.tolerance` on evaluation images.
    """
    return [_freeze(task) for task in tasks]


def _freeze(task: Task) -> float:
    config, dataset, source = task.settings.freeze, task.cell.dataset, task.cell.model
    prepared = open_prepared(task.params, dataset)
    live, card = checkpoint.load(source)
    prepared.check_classes(live.info.classes, source)
    if "val_miou" not in card:
        raise UserError(f"{source / paths.CARD}: val_miou is missing; write it again with `dvc repro`")
    folded = frozen.freeze(live)

    worst: dict[str, float] = {}
    seen = 0
    for images, _, _ in eval_loader(prepared, "val", batch_size=1, device=torch.device("cpu")):
        differences = frozen.compare(live, folded, normalize(images))
        worst = {name: max(value, worst.get(name, 0.0)) for name, value in differences.items()}
        seen += len(images)
        if seen >= config.images:
            break
    name, difference = max(worst.items(), key=lambda item: item[1])
    if not difference <= config.tolerance:
        raise UserError(
            f"{source}: frozen and live teacher differ by {difference:.1e} at {name}; "
            f"allowed: freeze.tolerance = {config.tolerance:.1e}; nothing was written"
        )
    left = frozen.bns(folded)
    with torch.inference_mode():
        taps = folded(
            normalize(images), taps=[Tap(layer, "refined") for layer in live.attention], logits=False
        ).taps
    checkpoint.save(
        paths.frozen(dataset),
        folded,
        {
            **legend(prepared.card).model_dump(mode="json"),
            "val_miou": card["val_miou"],
            # Where the attention comes from, and how many BNs are now part of a convolution.
            "attention": card.get("attention", {}),
            "bns": {"folded": len(frozen.bns(live)) - len(left), "not_folded": left},
            "taps": {tap.layer: list(features.shape[1:]) for tap, features in taps.items()},
            "image_size": list(images.shape[-2:]),
            "source_sha256": checkpoint.fingerprint(source),
        },
    )
    return difference
