"""A page as one HTML file that needs no other: pictures and style are in it."""

from base64 import b64encode
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from attnfd.report.layout import Page


def write(page: Page, pictures: Mapping[str, bytes]) -> str:
    """The whole page.

    Args:
        pictures: PNG files by the names of the page's pictures.
    """
    environment = Environment(
        loader=PackageLoader("attnfd.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    encoded = {name: b64encode(content).decode("ascii") for name, content in pictures.items()}
    return environment.get_template("page.html.j2").render(page=page, pictures=encoded)
