"""The site: the strict build passes, it is complete, and it loads nothing from elsewhere."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from attnfd import discovery
from attnfd.cli.main import app
from tests.miniature import PROJECT, environment

# Users choose the keys below these; the page shows them with their section.
FREE = re.compile(r"^(methods\.\w+\.(?:on|divisors)|ablate\.\w+|recipes\.\w+\.\w+\.\w+)\.")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=PROJECT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Page(HTMLParser):
    """The tags and the code of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.code: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "code":
            self.code.append("")

    def handle_data(self, data: str) -> None:
        if self.code:
            self.code[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "code":
            self.code.append("")


def leaves(section: Any, path: str = "") -> Iterator[str]:
    if isinstance(section, dict) and section:
        for key, value in section.items():
            yield from leaves(value, f"{path}.{key}" if path else key)
    elif section != {}:
        yield path


def test_every_key_of_params_has_a_row(site: Path) -> None:
    shown = set(Page(site / "params.html").code)
    shipped = YAML(typ="safe").load((PROJECT / "params.yaml").read_text())
    keys = {(FREE.match(key) or re.compile("(.*)").match(key))[1] for key in leaves(shipped)}  # type: ignore[index]
    assert len(keys) > 150
    assert keys - shown == set()


def test_every_option_of_a_reader_has_a_row(site: Path) -> None:
    shown = set(Page(site / "params.html").code)
    for name in discovery.names("readers"):
        for option in discovery.component("readers", name).Options.model_fields:
            assert f"recipes.<dataset>.prepare.{option}" in shown


def test_every_command_has_its_row_and_its_section(site: Path) -> None:
    html = (site / "commands.html").read_text(encoding="utf-8")
    index = html[: html.index("</table>")]
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        for inner in getattr(command, "commands", {"": command}):
            shown = f"<code>attnfd {name} {inner}".rstrip() + "</code>"
            assert shown in index
            assert shown in html.removeprefix(index)


def test_the_notebook_is_a_page(site: Path) -> None:
    html = (site / "quickstart.html").read_text(encoding="utf-8")
    notebook = json.loads((PROJECT / "notebooks/quickstart.ipynb").read_text(encoding="utf-8"))
    kinds = [cell["cell_type"] for cell in notebook["cells"]]
    assert html.count("<pre><span>") + html.count("<pre><code>") >= kinds.count("code")
    assert "".join(Page(site / "quickstart.html").code).count("DeepLabV3Plus(") == 2
    for page in ("results", "python", "your-data", "index"):
        assert f'href="{page}.html' in html


def test_every_module_has_its_docstring(site: Path) -> None:
    ids = {attrs.get("id") for page in site.glob("library/*.html") for _, attrs in Page(page).tags}
    for file in PROJECT.glob("attnfd/**/[!_]*.py"):
        module = ".".join(file.relative_to(PROJECT).with_suffix("").parts)
        assert module in ids or module.startswith("attnfd.cli.")


def test_formulas_are_drawn_by_the_browser(site: Path) -> None:
    source = (PROJECT / "docs/methods.md").read_text(encoding="utf-8")
    html = (site / "methods.html").read_text(encoding="utf-8")
    assert html.count("<math") == source.count("$$") / 2
    for page in site.rglob("*.html"):
        assert not re.search(r"\$\$|math::|:math:", page.read_text(encoding="utf-8")), page


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for file in site.rglob("*.html"):
        for tag, attrs in Page(file).tags:
            loaded = attrs.get("src") or (attrs.get("href") if tag == "link" else None) or ""
            assert not re.match(r"(https?:)?//", loaded) or attrs.get("rel") == "canonical", (file, loaded)
            # The theme would download Mermaid for these.
            assert "mermaid" not in (attrs.get("class") or ""), file
    styles = "".join(file.read_text(encoding="utf-8") for file in site.rglob("*.css"))
    assert not re.search(r"url\(['\"]?(https?:)?//", styles)


@pytest.mark.parametrize("document", sorted(PROJECT.glob("docs/add-a-*.md")), ids=lambda path: path.stem)
def test_steps_are_one_list(site: Path, document: Path) -> None:
    # With three spaces, GitHub continues a step, but the site's Markdown starts a new list; it needs four.
    steps = len(re.findall(r"^\d+\. ", document.read_text(encoding="utf-8"), re.MULTILINE))
    html = (site / f"{document.stem}.html").read_text(encoding="utf-8")
    plain = re.sub(r"<ul>.*?</ul>", "", html, flags=re.DOTALL)  # bullets inside a step
    lists = re.findall(r"<ol>(.*?)</ol>", plain, re.DOTALL)
    assert [found.count("<li>") for found in lists] == [steps]
