"""A page as one HTML file: it contains its pictures, its style, and all files that the reader can save."""

from base64 import b64encode
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from attnfd.report import vector
from attnfd.report.layout import Page, Picture

KINDS = {"csv": "text/csv", "tex": "application/x-tex", "pdf": "application/pdf"}


def write(page: Page, files: Mapping[str, bytes]) -> str:
    """The whole page.

    Args:
        files: what the page shows or lets the reader save, by path: `figures/<name>.svg` and
            `pdf/<name>.pdf` of every picture; `tables/<name>.csv`, `.tex` and `_full.tex` of every table.
    """
    environment = Environment(
        loader=PackageLoader("attnfd.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

    def drawn(picture: Picture) -> Markup:
        return Markup(vector.inline(files[f"figures/{picture.name}.svg"], picture.alt))

    def offers(*paths: str) -> list[tuple[str, str]]:
        """Name and address of the files that exist."""
        return [(path.rpartition("/")[2], _address(path, files[path])) for path in paths if path in files]

    return environment.get_template("page.html.j2").render(page=page, drawn=drawn, offers=offers)


def _address(path: str, content: bytes) -> str:
    return f"data:{KINDS[path.rpartition('.')[2]]};base64,{b64encode(content).decode('ascii')}"
