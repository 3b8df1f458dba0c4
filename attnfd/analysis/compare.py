"""Compares two cells, or two methods over their seeds: the settings that differ, and the results.

An address is a folder in `results/` or `ablation/`, such as `shapes/resnet18/attnfd/0`. Without its last part
it means all seeds. `@REV` at its end means a Git revision or a DVC experiment.
"""

import json
from collections.abc import Iterable, Sequence
from io import BytesIO
from math import nan
from pathlib import Path, PurePosixPath
from statistics import fmean, stdev
from typing import Any, NamedTuple

import fsspec
import numpy as np
from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from attnfd import discovery, paths
from attnfd.analysis import statistics, tables
from attnfd.analysis.reading import reading
from attnfd.analysis.statistics import Difference, Evaluation
from attnfd.config.params import PARAMS_FILE, parse_params
from attnfd.errors import UserError
from attnfd.evaluation.metrics import SCORES
from attnfd.paths import Cell

LOCK = "dvc.lock"
ROOTS = (paths.RESULTS.name, paths.ABLATION.name)

COLORS = {"better": "green", "worse": "red", "not significant": "yellow"}

BAR = 24
"""Width of a bar in characters, half of it for losses."""

Settings = dict[str, dict[str, Any]]


class Result(NamedTuple):
    """What the evaluation of a cell wrote: the content of `metrics.json` and of `confusion.npz`."""

    cell: Cell
    metrics: dict[str, Any]
    evaluation: Evaluation


class Side(NamedTuple):
    """One of the two sides: its address, its results by seed (None for a teacher), and its settings.

    `settings` contains its sections, or the reason why they cannot be read.
    """

    address: str
    results: dict[int | None, Result]
    settings: Settings | str


class Comparison(NamedTuple):
    """Two sides, their results in pairs, and the difference `b` minus `a`."""

    a: Side
    b: Side
    pairs: list[tuple[Result, Result]]
    difference: Difference


def compare(a: str, b: str) -> Comparison:
    """Read and pair the results at two addresses.

    Raises:
        UserError: there is nothing at an address, or the two have no seed, image or class in common.
    """
    sides = _side(a), _side(b)
    pairs = _pairs(*sides)
    first, second = ([result.evaluation for result in side] for side in zip(*pairs, strict=True))
    return Comparison(*sides, pairs, statistics.between(first, second))


def changed(a: Settings, b: Settings) -> list[tuple[str, str, str]]:
    """Dotted key and both values of every setting that differs, in sections that both sides have."""
    rows = []
    for section in a.keys() & b.keys():
        old, new = _flat(section, a[section]), _flat(section, b[section])
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                rows.append((key, old.get(key, "—"), new.get(key, "—")))
    return sorted(rows)


def gains(pairs: Sequence[tuple[Result, Result]]) -> list[tuple[str, float, float]]:
    """Classes with their mean IoU on both sides, the largest gain first, without classes that never occur."""
    rows = []
    for name in pairs[0][0].metrics["iou"]:
        ious = [(x.metrics["iou"][name], y.metrics["iou"][name]) for x, y in pairs]
        found = [pair for pair in ious if None not in pair]
        if found:
            rows.append((name, fmean(x for x, _ in found), fmean(y for _, y in found)))
    return sorted(rows, key=lambda row: row[1] - row[2])


def show(found: Comparison, console: Console) -> None:
    """Print a comparison, in colour if the console is a terminal."""
    for letter, side, results in zip("AB", (found.a, found.b), zip(*found.pairs, strict=True), strict=True):
        seeds = _seeds(dict.fromkeys(result.cell.seed for result in results))
        console.print(f"[bold]{letter}[/]  {escape(side.address)}  [dim]{seeds}[/]")
    color = COLORS[found.difference.verdict]
    console.print(f"\n[{color}]{_sentence(found)}[/]\n")
    _show_settings(*_of_one_kind(found, console), console)
    console.print(_scores(found))
    console.print(_gains(gains(found.pairs)))


def _sentence(found: Comparison) -> str:
    evaluations = [(a.evaluation.matrices, b.evaluation.matrices) for a, b in found.pairs]
    if all(np.array_equal(a, b) for a, b in evaluations):
        return f"B is identical to A on all {found.difference.images} images."
    return statistics.sentence(found.difference, "A", "B")


def _of_one_kind(found: Comparison, console: Console) -> tuple[Settings | str, Settings | str]:
    """The settings of both sides in the same sections, also if one is a teacher and one a student."""
    sides = found.a, found.b
    teachers = [None in side.results for side in sides]
    if teachers[0] == teachers[1] or any(isinstance(side.settings, str) for side in sides):
        return found.a.settings, found.b.settings
    kinds = ["a teacher" if teacher else "a student" for teacher in teachers]
    console.print(f"A is {kinds[0]} and B is {kinds[1]}: the two kinds of models have different settings\n")
    first, second = (_own(side.settings) for side in sides if not isinstance(side.settings, str))
    return first, second


def _own(settings: Settings) -> Settings:
    """The settings that a model of either kind is trained with, in sections that both kinds have."""
    trained = (
        {**settings["distill"], **settings["student"]} if "student" in settings else settings["train_teacher"]
    )
    shared = {name: settings[name] for name in ("prepare", "evaluate")}
    return {**shared, "model": trained, "method": settings.get("method", {})}


def _side(address: str) -> Side:
    name, _, revision = address.partition("@")
    where = f"results at {revision}" if revision else "results of the working tree"
    files = _files(revision)
    try:
        fix = "run dvc repro, or dvc pull"
        if revision and not files.exists(LOCK):
            fix = f"it has no {LOCK}, which lists them: run dvc repro, then git add {LOCK} && git commit"
        chosen = _choose(PurePosixPath(name).as_posix(), _folders(files), where, fix)
        found = [_result(files, folder, revision) for folder in chosen]
        params = files.read_text(PARAMS_FILE)
    except FileNotFoundError as error:
        raise UserError(f"{where}: not found ({error}); run dvc pull, or dvc repro") from None
    found.sort(key=lambda result: result.cell.seed or 0)
    by_seed = {result.cell.seed: result for result in found}
    return Side(address, by_seed, _settings(params, _at(PARAMS_FILE, revision), found[0].cell))


def _at(file: str, revision: str) -> str:
    return f"{file}@{revision}" if revision else file


def _files(revision: str) -> fsspec.AbstractFileSystem:
    """The files of the working tree, or those of a revision in Git and in DVC's cache."""
    if not revision:
        return fsspec.filesystem("dir", path=str(Path.cwd()), target_protocol="file")
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    files = DVCFileSystem(rev=revision)
    try:
        _ = files.repo  # looks for the revision
    except DvcException as error:
        raise UserError(f"@{revision}: {error}; allowed: a Git revision or a DVC experiment") from None
    return files


def _folders(files: fsspec.AbstractFileSystem) -> list[PurePosixPath]:
    """Folders of all cells that are evaluated."""
    found = [PurePosixPath(file) for root in ROOTS for file in files.find(root)]
    folders = [file.parent for file in found if file.name == paths.CONFUSION]
    return [folder for folder in folders if folder.name == paths.TEACHER or folder.name.isdecimal()]


def _choose(name: str, folders: Sequence[PurePosixPath], where: str, fix: str) -> list[PurePosixPath]:
    """The folders that an address means; the address may begin with `results` or `ablation`, or leave it out.

    Args:
        where: beginning of a message.
        fix: what to do if there are no folders at all.
    """
    by_address: dict[str, list[PurePosixPath]] = {}
    for folder in folders:
        for address in (folder, folder.parent) if folder.name != paths.TEACHER else (folder,):
            by_address.setdefault(address.as_posix(), []).append(folder)
            by_address.setdefault(PurePosixPath(*address.parts[1:]).as_posix(), []).append(folder)
    if not by_address:
        raise UserError(f"{where}: found none; {fix}")
    if name not in by_address:
        short = {address for address in by_address if address.partition("/")[0] not in ROOTS}
        discovery.one_of(name, tuple(sorted(short)), where)
    chosen = by_address[name]
    if len({folder.parts[0] for folder in chosen}) > 1:
        raise UserError(
            f"{name}: found in both {' and '.join(ROOTS)}; write results/{name} or ablation/{name}"
        )
    return chosen


def _result(files: fsspec.AbstractFileSystem, folder: PurePosixPath, revision: str) -> Result:
    file = (folder / paths.METRICS).as_posix()
    with reading(_at(file, revision)):
        metrics = json.loads(files.read_bytes(file))
    file = (folder / paths.CONFUSION).as_posix()
    evaluation = statistics.read(BytesIO(files.read_bytes(file)), _at(file, revision))
    return Result(Cell.of_folder(folder), metrics, evaluation)


def _settings(text: str, source: str, cell: Cell) -> Settings | str:
    """All settings that a cell's scores depend on, those of its teacher included.

    The params of an old revision may be invalid today. Its results can still be compared.
    """
    try:
        params = parse_params(text, source)
        teacher, own = params.resolve(Cell.teacher(cell.dataset)), params.resolve(cell)
        evaluate = {"evaluate": own.evaluate.model_dump(mode="json")}
        return {**teacher.of_the_model(), **own.of_the_model(), **evaluate}
    except UserError as error:
        return str(error)


def _pairs(a: Side, b: Side) -> list[tuple[Result, Result]]:
    """Pairs with equal seeds. Two single cells are a pair with any seeds; a teacher pairs with every seed."""
    if len(a.results) == len(b.results) == 1:
        return list(zip(a.results.values(), b.results.values(), strict=True))
    if None in a.results:
        return [(a.results[None], result) for result in b.results.values()]
    if None in b.results:
        return [(result, b.results[None]) for result in a.results.values()]
    pairs = [(result, b.results[seed]) for seed, result in a.results.items() if seed in b.results]
    if not pairs:
        raise UserError(
            f"{b.address}: found {_seeds(b.results)}; allowed: those of {a.address}, {_seeds(a.results)}; "
            "name one seed of each, or train equal ones"
        )
    return pairs


def _show_settings(a: Settings | str, b: Settings | str, console: Console) -> None:
    for settings in (a, b):
        if isinstance(settings, str):
            console.print(f"[yellow]settings not compared: {escape(settings)}[/]\n")
    if isinstance(a, str) or isinstance(b, str):
        return
    rows = changed(a, b)
    if not rows:
        console.print(f"no setting differs in {', '.join(section for section in a if section in b)}\n")
        return
    table = _table("setting", "A", "B")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _scores(found: Comparison) -> Table:
    """Means over the seeds; only the mIoU has an interval."""
    table = _table("score", ">A", ">B", ">difference", ">95 % CI")
    for score, title in SCORES.items():
        if not all(score in result.metrics for pair in found.pairs for result in pair):
            continue  # An old revision may have fewer scores.
        a, b = ([result.metrics[score] for result in side] for side in zip(*found.pairs, strict=True))
        interval = statistics.interval(found.difference) if score == "miou" else ""
        gain = fmean(b) - fmean(a)
        table.add_row(title, _spread(a), _spread(b), _signed(gain), interval)
    return table


def _gains(rows: Sequence[tuple[str, float, float]]) -> Table:
    table = _table("class", ">A", ">B", ">gain", "")
    largest = max((abs(b - a) for _, a, b in rows), default=0)
    for name, a, b in rows:
        table.add_row(
            escape(name), tables.percent(a), tables.percent(b), _signed(b - a), _bar(b - a, largest)
        )
    return table


def _bar(gain: float, largest: float) -> Bar | str:
    """A bar from the middle to the right for a gain, to the left for a loss: readable without colour."""
    if not largest:
        return ""
    begin, end = sorted((largest, largest + gain))
    return Bar(2 * largest, begin, end, width=BAR, color="green" if gain > 0 else "red")


def _table(*titles: str) -> Table:
    """An empty table; `>` before a title aligns its column to the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        table.add_column(title.removeprefix(">"), justify="right" if title.startswith(">") else "left")
    return table


def _spread(values: Sequence[float]) -> str:
    # A teacher that is paired with several students is the same number several times: no deviation.
    return tables.spread(fmean(values), stdev(values) if len(set(values)) > 1 else nan)


def _signed(gain: float) -> str:
    return f"[{'green' if gain > 0 else 'red' if gain < 0 else 'dim'}]{statistics.signed(gain)}[/]"


def _seeds(found: Iterable[int | None]) -> str:
    known = [str(seed) for seed in found if seed is not None]
    return f"{'seed' if len(known) == 1 else 'seeds'} {', '.join(known)}" if known else ""


def _flat(prefix: str, value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return {key: leaf for name in value for key, leaf in _flat(f"{prefix}.{name}", value[name]).items()}
    if isinstance(value, list):
        return {prefix: ", ".join(map(str, value))}
    return {prefix: value if isinstance(value, str) else json.dumps(value)}
