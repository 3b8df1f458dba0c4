"""What `prepare` prints about a dataset: a table of its splits, and the warnings."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from attnfd.data.prepared import Card, per_cent

LISTED = 24
"""Most classes in a table; with more classes, it lists this many of the rarest."""


def show(card: Card, warnings: Sequence[str]) -> None:
    """Print the table to standard output and the warnings to standard error."""
    Console().print(table(card))
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for warning in warnings:
        console.print(f"[bold yellow]warning:[/] {escape(warning)}")


def table(card: Card) -> Table:
    """Images of every split, and its pixels per class in per cent; with many classes, only the rarest."""
    totals = {name: sum(split.pixels[name] for split in card.splits.values()) for name in card.classes}
    shown = list(card.classes)
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, title=escape(card.name), title_justify="left")
    if len(shown) > LISTED:
        shown = sorted(shown, key=lambda name: totals[name])[:LISTED]
        drawn.caption = (
            f"The {LISTED} rarest of {len(card.classes)} classes; data/{card.name}/card.json has all."
        )
        drawn.caption_justify = "left"
    drawn.add_column("pixels in %", overflow="ellipsis", no_wrap=True, max_width=40)
    for name in card.splits:
        drawn.add_column(escape(name), justify="right")
    drawn.add_row("images", *(str(split.images) for split in card.splits.values()), end_section=True)
    shares = [split.shares() for split in card.splits.values()]
    for name in shown:
        drawn.add_row(escape(name), *(per_cent(share[name]) for share in shares))
    drawn.add_section()
    drawn.add_row("void", *(per_cent(share["void"]) for share in shares))
    return drawn
