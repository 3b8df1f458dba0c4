"""Draws the two pictures of docs/architecture.md: `python docs/walks.py`.

A box is a file and the names to read in it. An arrow is the data that one box passes to the next. A test
checks that the pictures are up to date, and that every file and name of a box is in the code.
"""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

IMAGES = Path(__file__).parent / "images"

# In pixels. COLUMN and ROW are the distances between the corners of two boxes.
MARGIN, COLUMN, ROW, WIDTH, HEIGHT = 4, 496, 146, 460, 92
LINE = 22
CHARACTER = 9.1
"""Width of a character of a label."""

# The pictures are transparent. Boxes and labels have a background, so that they are readable on any page.
STYLE = """
text { fill: #1f2430; font: 15px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace }
.file { font-size: 17px; font-weight: bold }
.says, .note { font-family: system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif; font-size: 16px }
.names { fill: #3949ab }
.label, .number { text-anchor: middle }
.number { font-weight: bold; fill: #ffffff }
rect { fill: #f5f6fb; stroke: #aab0c6 }
.ground { fill: #ffffff; stroke: none }
circle { fill: #3949ab }
path { fill: none; stroke: #7b8194; stroke-width: 1.5 }
.main { stroke: #5c6bc0; stroke-width: 3 }
marker path { fill: #7b8194; stroke: none }
#main path { fill: #5c6bc0 }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e6ef }
  .names { fill: #aab6fe }
  .number { fill: #ffffff }
  rect { fill: #262a36; stroke: #565d75 }
  .ground { fill: #1b1e27 }
}
"""


class Box(NamedTuple):
    """A file, the names to read in it, and its task.

    `names` are functions, classes and their members in a module. A file without names is data.
    """

    column: int
    row: int
    file: str
    names: tuple[str, ...]
    says: str


class Arrow(NamedTuple):
    """The data that box `start` passes to box `end`; boxes are numbered from 1.

    `main`: whether the arrow is part of the picture's main path. `shift`: pixels to the right of the middle.
    """

    start: int
    end: int
    label: str = ""
    main: bool = True
    shift: int = 0


class Walk(NamedTuple):
    """A picture."""

    title: str
    boxes: Sequence[Box]
    arrows: Sequence[Arrow]
    notes: Sequence[str]


PARAM = Walk(
    "From a number of params.yaml to the loss",
    (
        Box(0, 0, "params.yaml", (), "methods: attnfd: {weight: 1, …}"),
        Box(
            0,
            1,
            "attnfd/config/params.py",
            ("load_params", "Params.method"),
            "merges the sections and checks their types",
        ),
        Box(0, 2, "attnfd/config/task.py", ("Task.settings",), "resolves the settings of a cell, once"),
        Box(0, 3, "stages/distill.py", ("distill", "_make"), "makes, trains and saves the students"),
        Box(0, 4, "attnfd/students/student.py", ("make_student",), "makes a student and its distiller"),
        Box(
            1,
            4,
            "attnfd/distillers/attnfd.py",
            ("AttnFD.forward", "AttnFD.weight"),
            "weight × the sum of attnfd_loss over the layers",
        ),
        Box(
            1,
            3,
            "attnfd/training/objective.py",
            ("Objective.forward", "Objective.terms"),
            "runs teacher, student and distiller",
        ),
        Box(
            1,
            2,
            "attnfd/training/state.py",
            ("TrainState.step",),
            "loss = sum of the terms; backward; update",
        ),
        Box(1, 1, "attnfd/training/loop.py", ("fit_together",), "the two loops: epochs and steps"),
    ),
    (
        Arrow(1, 2, "YAML text"),
        Arrow(2, 3, "AttnFD.Config, weight: float"),
        Arrow(3, 4, "Settings, its method: AttnFD.Config"),
        Arrow(4, 5, "Settings, NetInfo of the teacher"),
        Arrow(9, 8, "images (B, 3, H, W), target (B, H, W)", main=False),
        Arrow(8, 7, "images, target, progress", main=False, shift=-118),
        Arrow(7, 6, "2 × Output, target", main=False, shift=-118),
        Arrow(5, 6),
        Arrow(6, 7, '{"attnfd": ()}', shift=118),
        Arrow(7, 8, '{"ce": (), "attnfd": ()}', shift=118),
    ),
    (
        "1 to 5: once for a cell. 6 to 9: in every step.",
        "5 → 6: AttnFD(student, teacher, Config).",
        "Output: logits (B, K, H, W), taps (B, C, h, w).",
        "B images, () a number. Thick: the way of the weight.",
    ),
)

MASK = Walk(
    "From a mask file to a table of the report",
    (
        Box(0, 0, "data/shapes/masks/train_00000.png", (), "a mask: a value for each pixel"),
        Box(
            0,
            1,
            "attnfd/readers/base.py",
            ("Reader.pairs", "Reader.labels"),
            "lists the files; gives the meaning of mask values",
        ),
        Box(0, 2, "attnfd/scan/files.py", ("scan",), "decodes all images and masks, finds their faults"),
        Box(0, 3, "attnfd/scan/index.py", ("to_index", "describe"), "refuses a dataset that has faults"),
        Box(
            0,
            4,
            "attnfd/data/prepared.py",
            ("Prepared.write", "open_prepared"),
            "data/<dataset>/index.csv and card.json",
        ),
        Box(
            0,
            5,
            "attnfd/data/loaders.py",
            ("train_loader", "eval_loader"),
            "value of a mask → class, or 255 for void",
        ),
        Box(0, 6, "attnfd/data/transforms.py", ("augment", "normalize"), "random scale, flip and crop"),
        Box(0, 7, "attnfd/training/state.py", ("TrainState.step",), "loss, backward, update"),
        Box(
            1,
            7,
            "attnfd/evaluation/inference.py",
            ("confusion",),
            "counts pixels by class of mask and prediction",
        ),
        Box(1, 6, "attnfd/evaluation/metrics.py", ("scores", "SCORES"), "mIoU and the other scores"),
        Box(1, 5, "attnfd/results/write.py", ("write_numbers",), "writes the numbers of one model"),
        Box(
            1,
            4,
            "attnfd/analysis/tables.py",
            ("results", "comparison", "aggregate"),
            "one row for each student and method",
        ),
        Box(1, 3, "attnfd/report/page.py", ("page",), "the report's tables, in HTML, Markdown and LaTeX"),
    ),
    (
        Arrow(1, 2, "path"),
        Arrow(2, 3, "Pair(image, mask), labels: dict[int, int]"),
        Arrow(3, 4, "Finding(row, faults)"),
        Arrow(4, 5, "index: DataFrame, card: Card"),
        Arrow(5, 6, "Prepared(card, index, root)"),
        Arrow(6, 7, "image (3, H, W), mask (H, W), uint8"),
        Arrow(7, 8, "images (B, 3, h, w), target (B, h, w)"),
        Arrow(8, 9),
        Arrow(6, 9),
        Arrow(9, 10, "matrices (N, K, K) int64, their sum (K, K)"),
        Arrow(10, 11, "Scores"),
        Arrow(11, 12, "metrics.json, confusion.npz"),
        Arrow(12, 13, "DataFrame, scores from 0 to 1"),
    ),
    (
        "1 to 5: the stage prepare. 6 to 8: distill.",
        "9 to 11: evaluate. 12 and 13: report.",
        "7 → 8: images are float32, target is int64.",
        "8 → 9: the trained weights, model.safetensors.",
        "6 → 9: images (B, 3, H, W), masks (B, H, W), uint8,",
        "of the split val, at their original size.",
        "N images in the split, B in a batch; K classes;",
        "h × w pixels of a crop.",
    ),
)

WALKS = {"walk-param.svg": PARAM, "walk-mask.svg": MASK}


def draw(walk: Walk) -> str:
    """A walk as SVG."""
    places = [corner(box) for box in walk.boxes]
    width, height = max(x for x, _ in places) + WIDTH + MARGIN, max(y for _, y in places) + HEIGHT + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(walk.title)}</title>",
        f"<style>{STYLE}</style>",
        f"<defs>{head('main', 12)}{head('side', 9)}</defs>",
        *draw_notes(walk.notes),
    ]
    for arrow in walk.arrows:
        parts += draw_arrow(arrow, walk.boxes[arrow.start - 1], walk.boxes[arrow.end - 1])
    for number, box in enumerate(walk.boxes, start=1):
        parts += draw_box(number, box)
    return "\n".join([*parts, "</svg>", ""])


def draw_notes(notes: Sequence[str]) -> Iterator[str]:
    x, height = MARGIN + COLUMN, LINE * len(notes) + 16
    yield f'<rect class="ground" x="{x}" y="{MARGIN}" width="{WIDTH}" height="{height}" rx="8"/>'
    for line, note in enumerate(notes, start=1):
        yield text(x + 12, MARGIN + 3 + LINE * line, note, "note")


def draw_box(number: int, box: Box) -> Iterator[str]:
    x, y = corner(box)
    yield f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
    yield f'<circle cx="{x + 23}" cy="{y + 23}" r="13"/>'
    yield text(x + 23, y + 28, str(number), "number")
    lines = {"file": box.file, "names": ", ".join(box.names), "says": box.says}
    shown = [(kind, content) for kind, content in lines.items() if content]
    for line, (kind, content) in enumerate(shown):
        yield text(x + 46, y + 29 + 24 * line, content, kind)


def draw_arrow(arrow: Arrow, start: Box, end: Box) -> Iterator[str]:
    (x, y), (to_x, to_y) = corner(start), corner(end)
    if x == to_x:
        middle = x + WIDTH // 2 + arrow.shift
        begin, stop = (y + HEIGHT, to_y) if y < to_y else (y, to_y + HEIGHT)
        yield line(f"M{middle} {begin}V{stop}", arrow.main)
        yield from label(middle, (begin + stop) // 2, arrow.label)
    elif y == to_y:
        yield line(f"M{x + WIDTH} {y + 62}H{to_x}", arrow.main)
    else:
        yield line(f"M{x + WIDTH} {y + 46}H{(x + WIDTH + to_x) // 2}V{to_y + 30}H{to_x}", arrow.main)


def line(way: str, main: bool) -> str:
    kind = "main" if main else "side"
    return f'<path class="{kind}" d="{way}" marker-end="url(#{kind})"/>'


def head(kind: str, size: int) -> str:
    """The head of an arrow."""
    return (
        f'<marker id="{kind}" viewBox="0 0 10 10" refX="10" refY="5" markerUnits="userSpaceOnUse" '
        f'markerWidth="{size}" markerHeight="{size}" orient="auto"><path d="M0 0L10 5L0 10z"/></marker>'
    )


def label(x: int, y: int, content: str) -> Iterator[str]:
    """A label with a background that covers the arrow."""
    if content:
        width = round(CHARACTER * len(content)) + 12
        yield f'<rect class="ground" x="{x - width // 2}" y="{y - 12}" width="{width}" height="24" rx="6"/>'
        yield text(x, y + 5, content, "label")


def corner(box: Box) -> tuple[int, int]:
    """The upper left corner of a box."""
    return MARGIN + box.column * COLUMN, MARGIN + box.row * ROW


def text(x: int, y: int, content: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(content, quote=False)}</text>'


if __name__ == "__main__":
    for name, walk in WALKS.items():
        (IMAGES / name).write_text(draw(walk), encoding="utf-8")
