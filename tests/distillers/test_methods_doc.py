"""`docs/methods.md` describes exactly the methods that the README offers, and all their options.

Your own method needs no section there.
"""

import re
from pathlib import Path

import pytest

from attnfd import discovery
from attnfd.config.schema import Method

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "methods.md"
OFFERED = re.findall(
    r"every method \| `run\.methods: \[(.+?)\]`", (PROJECT / "README.md").read_text(encoding="utf-8")
)
METHODS = OFFERED[0].split(", ")


def sections() -> dict[str, str]:
    """The text below each heading with a method's name; the text before the first is under ``."""
    first, *parts = re.split(r"^## `(\w+)`$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {"": first, **dict(zip(parts[::2], parts[1::2], strict=True))}


def test_every_method_has_a_section() -> None:
    assert sorted(sections()) == ["", *sorted(METHODS)]


@pytest.mark.parametrize("name", METHODS)
def test_every_option_is_named(name: str) -> None:
    shared, own = sections()[""], sections()[name].split("**Options:**")[1]
    fields = discovery.component("distillers", name).Config.model_fields
    missing = [
        field for field in fields if f"`{field}`" not in (shared if field in Method.model_fields else own)
    ]
    assert not missing
