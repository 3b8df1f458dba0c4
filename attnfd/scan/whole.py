"""Checks over all files of a dataset: the depth of its images, and differences between its masks."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from attnfd.config.schema import Prepare
from attnfd.data.depth import FEW, LARGEST, Depth, one_level, used
from attnfd.data.images import read_pixels
from attnfd.data.labels import VOID
from attnfd.data.prepared import SCORED
from attnfd.readers.base import Reader
from attnfd.scan.files import Finding

BITS = (8, 12, 16)
SHOWN_FILES = 6
"""How many files a fault names."""

BLACK, WHITE = 0, 0xFFFFFF


def choose_depth(settings: Prepare, root: Path, findings: Sequence[Finding]) -> Depth | None:
    """How images of more than 8 bits are scaled, the same for all; None if there are no such images.

    If the settings do not say it, the range is that of 8, 12 or 16 bits, the fewest that fit every value.
    """
    deep = [finding for finding in findings if finding.values is not None and finding.values.deep]
    if not deep:
        return None
    if settings.percentiles is not None:
        # Percentiles of the training images alone, unless only validation has such images.
        files = [root / finding.row["image"] for finding in deep if finding.row["split"] not in SCORED]
        low, high = _percentiles(
            files or [root / finding.row["image"] for finding in deep], settings.percentiles
        )
        return Depth(low=low, high=high, clip=True)
    highest = max(finding.values.highest for finding in deep if finding.values is not None)
    fewest = next(bits for bits in BITS if highest < 2**bits)
    bits = fewest if settings.bits == "auto" else settings.bits
    return Depth(low=0, high=2**bits - 1, clip=False)


def _percentiles(files: Iterable[Path], percentiles: tuple[float, float]) -> tuple[int, int]:
    """The values that these percentages of all pixels do not exceed."""

    def count(file: Path) -> np.ndarray:
        return np.bincount(read_pixels(file).ravel(), minlength=LARGEST + 1)

    with ThreadPoolExecutor() as pool:
        below = np.cumsum(sum(pool.map(count, files)))
    ranks = [max(1, math.ceil(share / 100 * below[-1])) for share in percentiles]
    low, high = np.searchsorted(below, ranks).tolist()
    return low, high


def compare(reader: Reader, findings: Sequence[Finding], depth: Depth | None) -> None:
    """Add faults that only a comparison of files shows; files with the same fault share one line."""
    faults: dict[str, list[str]] = {}
    for path, fault in (
        *_palette_faults(findings),
        *_white_faults(reader, findings),
        *(fault for finding in findings for fault in _value_faults(finding, depth)),
    ):
        faults.setdefault(fault, []).append(path)
    for fault, found in faults.items():
        paths = sorted(found)
        more = f" and {len(paths) - SHOWN_FILES} more" if len(paths) > SHOWN_FILES else ""
        findings[0].faults.append(f"{', '.join(paths[:SHOWN_FILES])}{more}: {fault}")


def _palette_faults(findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    """An index must have one colour in all masks, or it may mean different classes."""
    usual = _usual_palette(findings)
    for finding in findings:
        differ = [index for index, colour in finding.palette.items() if colour != usual[index]]
        if differ:
            index = differ[0]
            yield (
                finding.row["mask"],
                f"index {index} is #{finding.palette[index]:06x}, in other masks #{usual[index]:06x}; save "
                "all masks with one palette, or give prepare.classes as [red, green, blue]",
            )


def _usual_palette(findings: Sequence[Finding]) -> dict[int, int]:
    """The colour that an index has in most index masks."""
    seen: dict[int, Counter[int]] = {}
    for finding in findings:
        for index, colour in finding.palette.items():
            seen.setdefault(index, Counter())[colour] += 1
    return {index: colours.most_common(1)[0][0] for index, colours in seen.items()}


def _white_faults(reader: Reader, findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    """White must have one value in all masks, whatever their number of bits."""
    ones, whites = _ones_and_whites(reader, findings)
    if all(finding.bilevel or finding.palette.get(1) == WHITE for finding in ones):
        for finding in whites:
            yield (
                finding.row["mask"],
                f"white is 255, which is void, but 1 in {ones[0].row['mask']}; save all masks with 8 bits, "
                "and give the class the value 255",
            )


def _value_faults(finding: Finding, depth: Depth | None) -> Iterator[tuple[str, str]]:
    """An image must have more than one value, and none outside of the range that is scaled."""
    values, image = finding.values, finding.row["image"]
    if values is None:
        return
    if depth is not None and values.deep and not depth.clip and values.highest > depth.high:
        yield image, f"has values above {depth.high}, the limit of prepare.bits; increase it, or set auto"
    elif values.same and finding.row["height"] * finding.row["width"] > 1:
        yield image, "all pixels are equal; replace the image, or leave it out"
    elif one_level(values, depth) and not values.same:
        yield (
            image,
            "all values become one grey level; scale the images by prepare.percentiles, or leave it out",
        )


def _ones_and_whites(reader: Reader, findings: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Masks where the second of two classes is 1, and masks where it seems to be 255, which is void."""
    ones = [finding for finding in findings if 1 in finding.labels]
    whites = [finding for finding in findings if finding.labels == (0, VOID)]
    two_classes = {label for label, value in reader.labels.items() if value != VOID} == {0, 1}
    if not (two_classes and ones and whites) or any(VOID in finding.labels for finding in ones):
        return [], []
    return ones, whites


def remarks(
    settings: Prepare, reader: Reader, findings: Sequence[Finding], depth: Depth | None
) -> Iterator[str]:
    """Warnings about what may be correct, but what you should check."""
    if depth is None and (settings.percentiles is not None or settings.bits != "auto"):
        yield "prepare.bits and prepare.percentiles change nothing: all images have 8 bits"
    turned = [finding for finding in findings if finding.maybe_turned]
    if turned:
        yield (
            f"{_share(turned, findings)} have an EXIF orientation, such as {turned[0].row['image']}, and a "
            "mask whose size fits with and without it: check that the mask fits the upright image, or remove "
            "the orientation"
        )
    banded = [finding for finding in findings if finding.drops_a_band]
    if banded:
        yield (
            f"{_share(banded, findings)} have a band that is not read, such as {banded[0].row['image']}: a "
            "fourth one, or transparency; red, green and blue are used"
        )
    ones, whites = _ones_and_whites(reader, findings)
    if whites:
        yield (
            f"{len(whites)} masks contain 0 and 255, which is void, such as {whites[0].row['mask']}, and "
            f"{len(ones)} contain 1 and no 255: check that the class has one value in all masks"
        )
    yield from _black_remark(reader, findings)
    dull = [(finding, finding.values) for finding in findings if finding.values and _is_dull(finding, depth)]
    if dull:
        finding, values = dull[0]
        hint = f" of 0 to {depth.high}; scale them by prepare.percentiles" if depth and values.deep else ""
        yield (
            f"{_share(dull, findings)} use fewer than {FEW} of the 256 grey levels, such as "
            f"{finding.row['image']} with values {values.low} to {values.high}{hint}"
        )


def _black_remark(reader: Reader, findings: Sequence[Finding]) -> Iterator[str]:
    """Warn if black is a class and index 0 has another colour: a program may have chosen the indices."""
    palette = _usual_palette(findings)
    if 0 not in palette or palette[0] == BLACK:
        return
    for index, colour in palette.items():
        value = reader.labels.get(index, VOID)
        if colour == BLACK and value != VOID:
            yield (
                f"black is index {index} in the masks, which is {reader.classes[value]}, and index 0 is "
                f"#{palette[0]:06x}: if a program has chosen the indices, give prepare.classes as "
                "[red, green, blue]"
            )


def _is_dull(finding: Finding, depth: Depth | None) -> bool:
    return finding.values is not None and used(finding.values, depth) < FEW


def _share(some: Sequence[object], findings: Sequence[Finding]) -> str:
    return f"{len(some)} of {len(findings)} images"
