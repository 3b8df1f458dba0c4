"""What a report found, in sentences."""

from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from attnfd.analysis.statistics import Difference, sentence
from attnfd.analysis.tables import difference, percent, signed
from attnfd.config.schema import LAYERS
from attnfd.paths import TEACHER
from attnfd.report.gallery import runners_up
from attnfd.report.layout import Finding
from attnfd.report.names import Names

ONE_SEED = (
    "One seed: each difference compares two trained networks, not two methods. Its interval reflects the "
    "choice of images, not the randomness of training. For more seeds, set run.seeds in params.yaml."
)


def findings(found: pd.DataFrame, frames: Mapping[str, pd.DataFrame], names: Names) -> Iterator[Finding]:
    """For every student: AttnFD and its rivals, every method, the variants of AttnFD; then the warnings.

    Args:
        found: of `attnfd.analysis.tables.results`.
        frames: `comparison`, `equal_time` if there is one, `ablation` and `settings`.
    """
    distilled, comparison = found[found["variant"] == ""], frames["comparison"]
    teacher = comparison.loc[comparison["student"] == TEACHER, "miou"].item()
    for table in (frames[name] for name in ("comparison", "equal_time") if name in frames):
        for key, rows in table[table["student"] != TEACHER].groupby("student", sort=False):
            yield from _of_student(str(key), rows, distilled, teacher, names)
    for frame, called in (
        (frames["ablation"], "layers of AttnFD"),
        (frames["settings"], "variants of AttnFD"),
    ):
        for key, rows in frame.groupby("student", sort=False):
            yield from _of_variants(names.student(str(key)), called, rows, names)
    for cell in found.loc[found["collapsed"], "cell"]:
        yield Finding(
            "warning",
            f"Collapsed: {cell} predicts one class everywhere; its scores say nothing about its method.",
        )
    if distilled.loc[distilled["student"] != TEACHER, "seed"].nunique() == 1:
        yield Finding("warning", ONE_SEED)


def doubts(warnings: Iterable[str]) -> Iterator[Finding]:
    """The warnings of `prepare`."""
    for warning in warnings:
        yield Finding("warning", warning)


def interval(low: float, high: float) -> str:
    """`[+2.07, +7.40]` in per cent, or nothing if there is nothing to compare with."""
    return "" if pd.isna(low) else f"[{signed(low)}, {signed(high)}]"


def _of_student(
    key: str, rows: pd.DataFrame, distilled: pd.DataFrame, teacher: float, names: Names
) -> Iterator[Finding]:
    """AttnFD compared with no distillation and with the best other method, then every method."""
    student, ours = names.student(key), names.method("attnfd")
    miou = rows.set_index("method")["miou"]
    rivals = {"none": names.method("none")}
    if rival := runners_up(rows).get(key):
        rivals.setdefault(rival, f"{names.method(rival)} (the best other method)")
    for rival, called in rivals.items():
        pair = difference(distilled, "method", key, rival, "attnfd")
        if pair and pair.seeds > 1:
            yield Finding(pair.verdict, f"{student}: {sentence(pair, called, ours)}.")
        elif pair:
            yield Finding("note", f"{student}: {_gain(pair, called, ours)}.")
    if "none" in miou and (verdicts := _verdicts(rows, rows["method"].map(names.method))):
        yield Finding("note", f"{student}, compared with {names.method('none')}: {verdicts}.")
    if miou.get("none", 0) > teacher:
        undistilled = percent(miou["none"])
        yield Finding(
            "warning",
            f"The teacher ({percent(teacher)}) scores lower than {student} without distillation "
            f"({undistilled}).",
        )


def _of_variants(student: str, called: str, rows: pd.DataFrame, names: Names) -> Iterator[Finding]:
    """The best variant of a table compared with the baseline, then every verdict."""
    compared = rows.dropna(subset="difference")
    baseline = rows[rows["difference"].isna()]
    if compared.empty or baseline.empty:
        return
    against = names.method(baseline["variant"].iloc[0])
    best = compared.sort_values("miou", ascending=False, kind="stable").iloc[0]
    several = " on average" if best["seeds"] > 1 else ""
    yield Finding(
        "note",
        f"{student}: of all {called}, {_called(best, names)} scores highest, {percent(best['miou'])} "
        f"mIoU{several}, which is {signed(best['difference'])} compared with {against} "
        f"(95 % interval {interval(best['low'], best['high'])}).",
    )
    labels = rows.apply(_called, axis=1, names=names)
    if verdicts := _verdicts(rows, labels):
        yield Finding("note", f"{student}, {called} compared with {against}: {verdicts}.")


def _called(row: pd.Series, names: Names) -> str:
    """The name of a variant: the layers that it distils, or its title."""
    layers = [layer for layer in LAYERS if row.get(layer, False)]
    return " + ".join(layers) or names.method(row["variant"])


def _gain(pair: Difference, rival: str, ours: str) -> str:
    """A difference without a verdict: one pair of trainings."""
    bounds = interval(pair.low, pair.high)
    return f"{ours} differs from {rival} by {signed(pair.mean)} mIoU (95 % interval over images {bounds})"


def _verdicts(rows: pd.DataFrame, labels: pd.Series) -> str:
    """`better: LAD, AttnFD; worse: CWD` if several rows have a verdict; empty with one seed."""
    by_verdict = {
        verdict: labels[rows["verdict"] == verdict] for verdict in ("better", "not significant", "worse")
    }
    if sum(map(len, by_verdict.values())) < 2:
        return ""
    return "; ".join(
        f"{verdict}: {', '.join(called)}" for verdict, called in by_verdict.items() if len(called)
    )
