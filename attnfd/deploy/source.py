"""A trained model by its name: a folder, or a name in the tracking store."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnfd import paths
from attnfd.analysis.reading import need, reading
from attnfd.config.section import validate
from attnfd.errors import UserError
from attnfd.models import checkpoint
from attnfd.models.checkpoint import Legend
from attnfd.models.network import Network
from attnfd.tracking import exported

if TYPE_CHECKING:
    from attnfd.deploy.prediction import Prediction


@dataclass(frozen=True, repr=False)
class Model:
    """A network in eval mode on the CPU, and what its outputs mean.

    `miou` is the mIoU of its evaluation at original size, if there was one.
    """

    name: str
    network: Network
    legend: Legend
    card: dict[str, Any]
    miou: float | None

    def predict(
        self,
        image: Any,
        *,
        tile: int | None = None,
        overlap: int = 128,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        probabilities: bool = False,
    ) -> "Prediction":
        """Segment an image of any size, on the device of `network`, in float32.

        Args:
            image: its path, a PIL image, an array (H, W, 3) or (H, W), or a tensor (3, H, W). Values are
                whole numbers from 0 to 255; values of more than 8 bits are scaled as in the training.
            tile: side of the tiles for a larger image; None for the whole image.
            overlap: pixels that two tiles share, up to half a tile.
            flip: average the probabilities of the image and of its mirror image.
            scales: average the probabilities at the image's size times each of these factors.
            probabilities: also return the probabilities of all classes.

        Raises:
            UserError: the image cannot be read, its values or shape are not allowed, or an option is invalid.
            TypeError: `image` has another type.
        """
        from attnfd.deploy.prediction import predict
        from attnfd.deploy.views import Views
        from attnfd.evaluation.tiles import Tiles

        return predict(
            self.network,
            self.legend,
            image,
            tiles=None if tile is None else Tiles(size=tile, overlap=overlap),
            views=Views(flip=flip, scales=scales),
            probabilities=probabilities,
        )

    def __repr__(self) -> str:
        score = "not evaluated" if self.miou is None else f"mIoU {100 * self.miou:.2f}"
        return f"Model({self.name!r}: {', '.join(self.legend.classes)}; {score})"


def open_model(name: str | Path) -> Model:
    """Find and read a model.

    Args:
        name: a folder with weights and card, or the file of weights in it; the path of such a folder below
            `models/`, like `shapes/resnet18/attnfd/0`; the id of an MLflow run; a registered model,
            `models:/<name>@<alias>` or `<name>@<alias>`, or its name alone for the alias `best`.

    Raises:
        TypeError: `name` is not a string or path.
        UserError: there is no such model, it is damaged, or its card does not name its classes.
    """
    if not isinstance(name, str | Path):
        raise TypeError(
            f"model: found {name!r}; pass a folder such as 'shapes/resnet18/attnfd/0', the id of an MLflow "
            "run, or a registered model such as 'models:/attnfd-shapes@best'"
        )
    name = str(name)
    folder = _folder(name)
    if folder is not None:
        return _read(name, folder)
    if ":/" not in name and "/" in name:
        raise UserError(
            f"{name}: found no model; allowed: a folder such as models/shapes/resnet18/attnfd/0, "
            "an MLflow run's id, or models:/<name>@<alias>"
        )
    with tempfile.TemporaryDirectory() as scratch:
        exported.fetch(name, Path(scratch))
        return _read(name, Path(scratch))


def _folder(name: str) -> Path | None:
    path = Path(name)
    if path.name == paths.MODEL:
        path = path.parent
    for folder in (path, paths.MODELS / path):
        if (folder / paths.MODEL).exists() or (folder / paths.CARD).exists():
            return folder
    return None


def _read(name: str, folder: Path) -> Model:
    network, card = checkpoint.load(folder)
    where = f"{name}: {paths.CARD}"
    needed = {key for key, field in Legend.model_fields.items() if field.is_required()}
    if not needed <= card.keys():
        missing = ", ".join(sorted(needed - card.keys()))
        raise UserError(f"{where}: {missing}: missing; an older version wrote this card; run `dvc repro`")
    legend = validate(Legend, {key: card[key] for key in Legend.model_fields if key in card}, where)
    if not len(legend.classes) == len(legend.palette) == network.info.classes:
        raise UserError(
            f"{where}: found {len(legend.classes)} classes and {len(legend.palette)} colours; "
            f"allowed: {network.info.classes} of each, the number of classes of the network"
        )
    return Model(name, network, legend, card, _miou(folder))


def _miou(folder: Path) -> float | None:
    """The mIoU from the metrics beside the model, or at the same path below `results/`."""
    parts = list(folder.absolute().parts)
    if paths.MODELS.name in parts:
        last = len(parts) - 1 - parts[::-1].index(paths.MODELS.name)
        parts[last] = paths.RESULTS.name
    for file in (folder / paths.METRICS, Path(*parts, paths.METRICS)):
        if file.exists():
            with reading(file.as_posix()):
                metrics = json.loads(file.read_bytes())
                need(("miou",), metrics)
                return metrics["miou"]
    return None
