"""Faults that make a dataset useless for training although each of its files is valid."""

from collections.abc import Sequence

from attnfd.data.labels import COLOUR, VOID
from attnfd.data.prepared import SPLITS, Card
from attnfd.errors import UserError
from attnfd.readers.base import Reader
from attnfd.scan.files import Finding, spelled

SHOWN_NAMES = 8
"""How many classes a message names."""


def check_trainable(card: Card, reader: Reader, findings: Sequence[Finding]) -> None:
    """Check that every class occurs, and that `train` and `val` have two classes or more.

    A part of a published dataset may lack classes, since its reader has fixed classes.

    Raises:
        UserError: a class is missing; the message says what the masks contain, and the likely cause.
    """
    absent = [name for name in card.classes if not any(split.pixels[name] for split in card.splits.values())]
    if absent and reader.own_classes:
        values = _values(card)
        named = {name: spelled(label for label in values if values[label] == name) for name in absent}
        found = {label for finding in findings for label in finding.labels}
        cause = _cause(absent, card, findings)
        it = "it" if len(absent) == 1 else "them"
        shown = listed([f"{name} ({named[name]})" for name in absent])
        raise UserError(
            f"{card.name}: no mask has a pixel of {shown}. The masks contain {spelled(found)}. "
            f"{cause}{'If not, remove' if cause else 'Remove'} {it} from the classes, or add images with {it}"
        )
    for split in SPLITS:
        present = [name for name, pixels in card.splits[split].pixels.items() if pixels]
        if len(present) < 2:
            only = present[0] if present else "void"
            is_void = reader.own_classes and any(VOID in finding.labels for finding in findings)
            hint = "; 255 is void unless a class has it" if is_void and VOID not in _values(card) else ""
            raise UserError(
                f"{card.name}: split {split}: its masks contain only {only}{hint}; allowed: two classes "
                "or more; add images of other classes to it, by its list or by the share that validates"
            )


def listed(names: Sequence[str]) -> str:
    """The names of some classes, and how many there are."""
    kind = "class" if len(names) == 1 else f"{len(names)} classes:"
    more = f", … ({len(names)} in all)" if len(names) > SHOWN_NAMES else ""
    return f"{kind} {', '.join(names[:SHOWN_NAMES])}{more}"


def _values(card: Card) -> dict[int, str]:
    """The class of every value in a mask that has a class."""
    return {label: card.classes[index] for label, index in card.labels.items() if index != VOID}


def _cause(absent: Sequence[str], card: Card, findings: Sequence[Finding]) -> str:
    """The likely cause, judged from the values in the masks, as a question and its answer."""
    classes = _values(card)
    if max(classes) >= COLOUR:
        return ""
    masks = [[label for label in finding.labels if label in classes] for finding in findings]
    found = {label for labels in masks for label in labels}
    has_255 = any(VOID in finding.labels for finding in findings)
    if has_255 and VOID not in classes and len(found) < 2:
        cell = absent[-1]
        return f"255 is void unless a class has it: is it {cell}? Then write `{cell}: 255`. "
    if _are_instances(masks):
        return "Are the values numbers of the objects in an image (instances)? Then use masks of classes. "
    if {classes[min(classes)], classes[max(classes)]} & set(absent):
        return (
            "Are the names shifted by one relative to the values, or are the values numbers of the objects "
            "in an image (instances)? Then correct that. "
        )
    return ""


def _are_instances(masks: Sequence[Sequence[int]]) -> bool:
    """Whether the values of every mask count from 0 or 1 without a gap, up to different numbers."""
    counted = all(list(labels) == list(range(labels[0], labels[-1] + 1)) for labels in masks if labels)
    starts = {labels[0] for labels in masks if labels}
    ends = {labels[-1] for labels in masks if labels}
    return counted and starts <= {0, 1} and len(ends) > 2
