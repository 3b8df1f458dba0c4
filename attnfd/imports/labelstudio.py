"""Label Studio's "Brush labels to PNG": a black and white picture per task and label."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from attnfd.data.images import IMAGES, decode_mask
from attnfd.errors import UserError
from attnfd.imports.base import BACKGROUND, Export, Importer, Sample
from attnfd.imports.parts.canvas import Canvas, Size
from attnfd.imports.parts.files import Part, read_json, typed
from attnfd.readers.base import sift, walk

PICTURE = re.compile(
    r"task-(?P<task>\d+)-annotation-(?P<annotation>\d+)-by-(?P<rest>.+)-(?P<number>\d+)\.png"
)
HALF = 127
"""Brushes have soft borders: a pixel belongs to a label if its value is above one half."""


class Task(Part):
    """A task of the JSON export."""

    id: int


class Brush(NamedTuple):
    """A picture of one label of one annotation."""

    task: int
    annotation: int
    label: str
    file: Path


class LabelStudio(Importer):
    """`task-12-annotation-3-by-1-tag-road-0.png`, and the JSON export, which names the image of a task."""

    about = "Label Studio: brush labels as PNG, one per label, with the JSON export and the images beside"

    def fits(self, root: Path) -> bool:
        return root.is_dir() and any(PICTURE.fullmatch(file.name) for file in walk(root))

    def read(self, root: Path) -> Export:
        tasks = _tasks(root)
        labels = sorted({label for task in tasks.values() for label in _labels(task)})
        faults: list[str] = []
        brushes = list(_brushes(root, labels, faults))
        if not brushes and not faults:
            raise UserError(f"{root}: found no task-…-annotation-…-by-….png")
        export = Export(
            {0: BACKGROUND, **{1 + place: label for place, label in enumerate(labels)}},
            overlaps="the smaller region",
            faults=faults,
        )
        images = {file.name: file for file in sift(walk(root), IMAGES).files}
        of_task: dict[int, list[Brush]] = defaultdict(list)
        for brush in brushes:
            of_task[brush.task].append(brush)
        for task, found in sorted(of_task.items()):
            _add(export, task, found, tasks.get(task), images)
        bare = sorted(tasks.keys() - of_task.keys())
        if bare:
            export.remarks.append(f"{len(bare)} tasks have no brush label, such as task {bare[0]}")
        return export


def _tasks(root: Path) -> dict[int, dict[str, Any]]:
    """The tasks of the JSON export by their number."""
    found: dict[int, dict[str, Any]] = {}
    for file in sorted(root.glob("*.json")) + sorted(root.glob("*/*.json")):
        content = read_json(file)
        for task in content if isinstance(content, list) else ():
            if isinstance(task, dict) and "id" in task:
                number = typed(Task, task, file).id
                if number in found and found[number] != task:
                    raise UserError(f"{file}: task {number} is also in another JSON file; keep one of them")
                found[number] = task
    if not found:
        raise UserError(
            f"{root}: found no JSON export; the names of the PNG files contain the number of a task but not "
            "its image: export the project as JSON, too, and put that file there"
        )
    return found


def _labels(entry: Any) -> Iterator[str]:
    """All brush labels in a part of a JSON export."""
    if isinstance(entry, dict):
        labels = entry.get("brushlabels")
        yield from (label for label in (labels if isinstance(labels, list) else ()) if isinstance(label, str))
        entry = list(entry.values())
    if isinstance(entry, list):
        for part in entry:
            yield from _labels(part)


def _brushes(root: Path, labels: Sequence[str], faults: list[str]) -> Iterator[Brush]:
    for file in sorted(walk(root)):
        match = PICTURE.fullmatch(file.name)
        if match:
            # The name ends in the label; the annotator and the tag before it can have any form.
            ends = [label for label in labels if match["rest"].endswith(f"-{label}")]
            if ends:
                yield Brush(int(match["task"]), int(match["annotation"]), max(ends, key=len), file)
            else:
                faults.append(
                    f"{file}: has none of the labels of the JSON export; allowed: {', '.join(labels)}"
                )


def _add(
    export: Export, task: int, brushes: list[Brush], entry: dict[str, Any] | None, images: dict[str, Path]
) -> None:
    by = sorted({brush.annotation for brush in brushes})
    if len(by) > 1:
        listed = ", ".join(map(str, by))
        export.faults.append(f"{brushes[0].file}: task {task} has annotations {listed}; keep one of them")
        return
    if entry is None:
        export.faults.append(f"{brushes[0].file}: the JSON export has no task {task}")
        return
    data = entry.get("data", entry)  # in JSON_MIN, the image is beside the number
    addresses = [
        value for value in (data.values() if isinstance(data, dict) else ()) if isinstance(value, str)
    ]
    last = [re.split(r"[/\\=]", unquote(address))[-1] for address in addresses]
    # Label Studio adds eight letters and a dash before the name of an uploaded file.
    names = [*last, *(name.partition("-")[2] for name in last)]
    image = next((images[name] for name in names if name in images), None)
    if image is None:
        export.faults.append(
            f"task {task}: its image is missing; put {last[0] if last else 'it'} into the export's folder"
        )
        return
    index = {label: value for value, label in export.classes.items()}
    found = [(index[brush.label], brush.file) for brush in brushes]
    export.samples.append(Sample(image.stem, image, None, partial(_draw, found), str(brushes[0].file)))


def _draw(found: Sequence[tuple[int, Path]], size: Size) -> Canvas:
    canvas = Canvas(size)
    regions = []
    for value, file in found:
        region = decode_mask(file) > HALF
        if region.shape != size:
            height, width = region.shape
            canvas.faults.append(f"{file.name} has {width}×{height} pixels, its image {size[1]}×{size[0]}")
        else:
            regions.append((value, region))
    for value, region in sorted(regions, key=lambda pair: -np.count_nonzero(pair[1])):
        canvas.put(region, value)
    return canvas
