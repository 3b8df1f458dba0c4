"""Makes pages from commands, params and docstrings while the site is built.

MkDocs calls the functions `on_…` (`hooks` in mkdocs.yml). These pages are not files, so none can be outdated.
"""

import json
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any

from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor
from math_core import LatexToMathML
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer import Context
from typer.cli import get_docs_for_click
from typer.main import get_command

from attnfd import discovery
from attnfd.cli.main import app
from attnfd.config.params import PARAMS_FILE, load_params
from attnfd.config.schema import (
    Distill,
    Evaluate,
    Freeze,
    Prepare,
    Report,
    Run,
    Student,
    Training,
    TrainTeacher,
    Tune,
)
from attnfd.config.section import Section

PROJECT = Path(__file__).parents[1]
COMMANDS = "cli"
"""The package of the command line: its page is made from the help of its commands."""

PACKAGES = tuple(
    ".".join(file.parent.relative_to(PROJECT).parts)
    for file in sorted(PROJECT.glob("attnfd/**/__init__.py"))
    if file.parent.name != COMMANDS
)

# Sections with fixed keys. In the other sections, the user chooses the names of the keys.
SECTIONS: dict[str, type[Section]] = {
    "run": Run,
    "training": Training,
    "train_teacher": TrainTeacher,
    "freeze": Freeze,
    "distill": Distill,
    "tune": Tune,
    "evaluate": Evaluate,
    "report": Report,
}

BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}

Schema = Mapping[str, Any]


def on_config(config: MkDocsConfig) -> None:
    """Add the library's pages to the navigation, and the Markdown extension for docstrings."""
    assert config.nav is not None
    config.nav.append({"Library": [{package: f"library/{package}.md"} for package in PACKAGES]})
    config.markdown_extensions.append(Docstrings())


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages."""
    pages = {"index.md": start_page(), "commands.md": commands_page(), "params.md": params_page()}
    pages["quickstart.md"] = notebook_page()
    pages |= {f"library/{package}.md": library_page(package) for package in PACKAGES}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))


class Docstrings(Extension):
    """Supports formulas and examples as documents and docstrings write them."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - Markdown's name
        # Before SuperFences (priority 25), which draws the examples.
        md.preprocessors.register(FormulasAndExamples(md), "formulas_and_examples", 26)


class FormulasAndExamples(Preprocessor):
    """Converts formulas to MathML, which browsers can draw; `>>>` starts a block of code."""

    def run(self, lines: list[str]) -> list[str]:
        text = "\n".join(lines)
        text = re.sub(r"\$\$(.+?)\$\$", self._block, text, flags=re.DOTALL)
        text = re.sub(r"^ *\.\. math::((?:\n| .*)+)", self._block, text, flags=re.MULTILINE)
        text = re.sub(r":math:`(.+?)`|\$([^$`\n]*\\[^$`\n]*)\$", self._inline, text)
        text = re.sub(r"^>>> (?:.+(?:\n|\Z))+", self._example, text, flags=re.MULTILINE)
        return text.split("\n")

    def _block(self, found: re.Match[str]) -> str:
        # Material's class for formulas: a wide formula scrolls.
        return f'\n\n{self._stash(f"""<div class="arithmatex">{_mathml(found[1], block=True)}</div>""")}\n\n'

    def _inline(self, found: re.Match[str]) -> str:
        return self._stash(_mathml(found[1] or found[2], block=False))

    def _example(self, found: re.Match[str]) -> str:
        return f"```pycon\n{found[0].rstrip()}\n```\n"

    def _stash(self, html: str) -> str:
        return str(self.md.htmlStash.store(html))


def _mathml(formula: str, *, block: bool) -> str:
    convert = LatexToMathML(fancy_error=False).convert_with_local_state
    # The only character of our formulas that the converter knows just by its command.
    return convert(dedent(formula).replace("⊤", r"\top "), displaystyle=block)


def start_page() -> str:
    """The README with links that fit this page. Its graph is text, because Mermaid would need a download."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    return re.sub(
        r"```mermaid\n.*?\n(.*?)```",
        lambda found: f"```text\n{found[1].replace('-->', '→')}```",
        text,
        flags=re.DOTALL,
    )


def notebook_page() -> str:
    """The notebook as text and code blocks."""
    notebook = json.loads((PROJECT / "notebooks/quickstart.ipynb").read_text(encoding="utf-8"))
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    return "\n\n".join(parts).replace("](../docs/", "](").replace("](../README.md)", "](index.md)")


def commands_page() -> str:
    """The `--help` of every command."""
    found = list(commands())
    index = [
        f"| [`{name}`](#{name.replace(' ', '-')}) | {_escaped(command.help.splitlines()[0])} |"
        for name, command, _ in found
    ]
    helps = "\n".join(
        get_docs_for_click(obj=command, ctx=context, indent=1, name=name) for name, command, context in found
    )
    examples = re.sub(r"^(\w[^`\n]*): (attnfd .*)$", r"\1:\n\n```sh\n\2\n```", helps, flags=re.MULTILINE)
    return "\n".join(
        ["# Commands", "", "| command | what it does |", "|---|---|", *index, "", _escaped(examples)]
    )


def commands() -> Iterator[tuple[str, Any, Context]]:
    """Every command with its full name, in the order of the code."""
    top = get_command(app)
    todo: list[tuple[str, Any, Context]] = [("attnfd", top, Context(top, info_name="attnfd"))]
    while todo:
        name, command, context = todo.pop(0)
        inner = getattr(command, "commands", {})
        if not inner:
            yield name, command, context
        for word, child in inner.items():
            todo.append((f"{name} {word}", child, Context(child, info_name=word, parent=context)))


def _escaped(text: str) -> str:
    """Escape `<dataset>` in a sentence, which is not HTML. A line with backticks does not need it."""
    return "\n".join(line if "`" in line else line.replace("<", "&lt;") for line in text.splitlines())


def params_page() -> str:
    """Every key of `params.yaml`: meaning, allowed values and value, from the classes that check it."""
    shipped = load_params(PROJECT / PARAMS_FILE).raw
    parts: list[str] = [
        "# Params",
        "This page lists every key of `params.yaml`. If a key is unknown, missing or out of range, the "
        "command names it and stops before anything runs.",
        "A stage's settings for a dataset come from four places. Each overrides the ones before it: "
        "`training`, `<stage>`, `recipes.<dataset>.training`, `recipes.<dataset>.<stage>`.",
    ]
    for name, kind in SECTIONS.items():
        parts += [f"## {name}", str(kind.__doc__), _table(kind, name, shipped[name])]
        if issubclass(kind, (TrainTeacher, Distill)):
            parts.append("Every key of `training` is also allowed here.")
    parts += ["## ablate", "Variants of AttnFD: each changes some keys of `methods.attnfd`."]
    parts.append(_values("ablate", shipped["ablate"]))
    parts += ["## students", str(Student.__doc__)]
    for name, values in shipped["students"].items():
        parts.append(_table(Student, f"students.{name}", values))
    parts += ["## methods", "A section per method; [the methods](methods.md) says what each computes."]
    for name, values in shipped["methods"].items():
        kind = discovery.component("distillers", name).Config
        parts += [f"### methods.{name}", _summary(f"attnfd.distillers.{name}")]
        parts.append(_table(kind, f"methods.{name}", values))
    parts += [
        "## recipes",
        "A recipe per dataset. `prepare` has a `reader` and the options of that reader.",
    ]
    parts.append(_table(Prepare, "recipes.<dataset>.prepare", {}))
    for name in discovery.names("readers"):
        kind = discovery.component("readers", name).Options
        parts += [f"### reader: {name}", _summary(f"attnfd.readers.{name}")]
        parts.append(_table(kind, "recipes.<dataset>.prepare", {}))
    for name, recipe in shipped["recipes"].items():
        parts.append(f"### recipes.{name}")
        parts += [_values(f"recipes.{name}.{stage}", values) for stage, values in recipe.items() if values]
    return "\n\n".join(parts)


def _summary(module: str) -> str:
    return str(import_module(module).__doc__).splitlines()[0]


def _table(kind: type[Section], prefix: str, values: Mapping[str, Any]) -> str:
    """A table of a section's keys, without those that it shares with `training`."""
    shared = Training.model_fields if issubclass(kind, (TrainTeacher, Distill)) else {}
    rows = [
        f"| `{prefix}.{key}` | {meaning} | {may} | {value} |"
        for key, meaning, may, value in _keys(kind.model_json_schema(), values)
        if key not in shared
    ]
    return "\n".join(["| key | what it is | allowed | value |", "|---|---|---|---|", *rows])


def _keys(schema: Schema, values: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Key, meaning, allowed values, and value or default of each key, also of those in nested sections."""
    for key, field in schema["properties"].items():
        inner = schema.get("$defs", {}).get(str(field.get("$ref")).rpartition("/")[2])
        if inner:
            for name, *rest in _keys(inner, values.get(key, {})):
                yield (f"{key}.{name}", *rest)
        else:
            value = values.get(key, field.get("default", "must be given"))
            yield key, _meaning(field).replace("|", r"\|"), _allowed(field), _shown(value)


def _meaning(field: Schema) -> str:
    """The description of a key; if the key may be null, it is in the description of its other type."""
    kinds = (field, *field.get("anyOf", ()))
    return str(next(kind["description"] for kind in kinds if "description" in kind))


def _number(value: float) -> str:
    return "2⁶³" if value == 2**63 else f"{value:g}"


def _allowed(field: Schema) -> str:
    """The allowed values, from the JSON schema."""
    if "anyOf" in field:
        return " or ".join(map(_allowed, field["anyOf"]))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = {
        "integer": "whole number",
        "object": "keys and values",
        "null": "`null`",
        "boolean": "`true`, `false`",
    }
    bounds = [f"{sign} {_number(field[bound])}" for bound, sign in BOUNDS.items() if bound in field]
    if "prefixItems" in field:
        return f"{len(field['prefixItems'])} of: {_allowed(field['prefixItems'][0])}"
    if "items" in field:
        return f"list of: {_allowed(field['items'])}"
    found = str(field.get("type", "any value"))
    return " ".join([kind.get(found, found), *bounds])


def _values(prefix: str, values: Mapping[str, Any]) -> str:
    rows = [f"| `{prefix}.{key}` | {_shown(value)} |" for key, value in values.items()]
    return "\n".join(["| key | value |", "|---|---|", *rows])


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace('"', "")
    return f"`{text}`" if text else "empty"


def library_page(package: str) -> str:
    """The docstrings of a package's modules."""
    files = sorted((PROJECT / package.replace(".", "/")).glob("[!_]*.py"))
    return "\n\n".join([f"# {package}", *(f"::: {package}.{file.stem}" for file in files)])
