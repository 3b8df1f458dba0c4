"""The report of a dataset: what it found, in sentences, and the tables that show it."""

from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from attnfd.analysis.statistics import sentence
from attnfd.analysis.tables import difference, percent, signed, spread
from attnfd.config.schema import LAYERS
from attnfd.data.prepared import per_cent
from attnfd.paths import TEACHER
from attnfd.report.gallery import runners_up
from attnfd.report.layout import Align, Column, Finding, Page, Picture, Section, Table, Value

COMPARISON, ABLATION, SETTINGS, NETWORKS = "Comparison", "Distilled layers", "Other settings", "Networks"
DATA = "Data"
SECTIONS = {
    "comparison": COMPARISON,
    "ablation": ABLATION,
    "settings": SETTINGS,
    "curves": "Learning curves",
    "per_class": "Classes",
    "gains": "Classes",
    "confusion": "Classes",
    "overlays": "Predictions",
    "attention": "Attention",
    "sizes": NETWORKS,
    "networks": NETWORKS,
    "data": DATA,
}
"""In their order, the section of a table or picture by what its name starts with."""

READING = (
    "Scores are in per cent, at the images' original size, from one confusion matrix over the whole split; "
    "void pixels count nowhere. mIoU is the mean over the classes that occur in the ground truth of the "
    "split, the same ones for every method.",
    "± is the sample standard deviation over the seeds; n/a where one seed has none. In bold: the best of a "
    "student; underlined: the second.",
    "Differences are paired: the same seeds, the same images. Their 95 % interval is a bootstrap over the "
    "images, with Student's t over the seeds; better and worse mean that it leaves out 0. Every interval "
    "stands for itself: of twenty, one misses by chance alone.",
)
PAPER = "The paper's numbers come from its own training; epochs, crops and weights of this recipe may differ."
ONE_SEED = (
    "One seed each: the intervals cover the chance of the images, not that of training, and ± is not "
    "available. More: run.seeds in params.yaml."
)
IN_USE = (
    "Of the network in use: the teacher keeps its attention, a student has connectors and attention in "
    "training only. Multiply-adds are those of the first image that is scored. How long they take depends "
    "on the machine: attnfd benchmark measures it; the report's run in MLflow holds its mIoU over latency."
)


def page(
    title: str,
    subtitle: str,
    found: pd.DataFrame,
    frames: Mapping[str, pd.DataFrame],
    captions: Mapping[str, str],
    warnings: Iterable[str] = (),
) -> Page:
    """The page of a dataset.

    Args:
        found: of `attnfd.analysis.tables.results`.
        frames: by name, of the functions `comparison`, `ablation`, `settings`, `networks` and `data` of that
            module.
        captions: of the pictures, by name; `SECTIONS` tells where each stands.
        warnings: of `prepare`.
    """
    tables = list(_tables(frames))
    pictures = [Picture(*item) for item in captions.items()]
    sections = (
        Section(
            title,
            text=(IN_USE,) if title == NETWORKS else (),
            tables=tuple(table for table in tables if _section(table.name) == title),
            pictures=tuple(picture for picture in pictures if _section(picture.name) == title),
        )
        for title in dict.fromkeys(SECTIONS.values())
    )
    comparison = frames["comparison"]
    notes = (*READING, PAPER) if "paper_miou" in comparison else READING
    return Page(
        title,
        subtitle,
        (
            Section("Findings", findings=(*_findings(found, comparison), *_doubts(warnings))),
            *(section for section in sections if section.tables or section.pictures),
            Section("Notes", text=notes),
        ),
    )


def _section(name: str) -> str:
    return next(section for start, section in SECTIONS.items() if name.startswith(start))


def _tables(frames: Mapping[str, pd.DataFrame]) -> Iterator[Table]:
    yield _comparison(frames["comparison"])
    if not frames["ablation"].empty:
        yield _ablation(frames["ablation"])
    if not frames["settings"].empty:
        yield _settings(frames["settings"])
    yield _networks(frames["networks"])
    yield _data(frames["data"])


def _findings(found: pd.DataFrame, comparison: pd.DataFrame) -> Iterator[Finding]:
    distilled = found[found["variant"] == ""]
    teacher = comparison.loc[comparison["student"] == TEACHER, "miou"].item()
    for student, rows in comparison[comparison["student"] != TEACHER].groupby("student", sort=False):
        miou = rows.set_index("method")["miou"]
        rivals = {"none": "none (no distillation)"}
        if str(student) in runners_up(comparison):
            rival = runners_up(comparison)[str(student)]
            rivals.setdefault(rival, f"{rival} (the best other method)")
        for rival, called in rivals.items():
            pair = difference(distilled, "method", str(student), rival, "attnfd")
            if pair:
                yield Finding(pair.verdict, f"{student}: {sentence(pair, called, 'attnfd')}.")
        if "none" in miou and len(miou) > 2:
            yield Finding("note", f"{student}, beside none: {_verdicts(rows)}.")
        if miou.get("none", 0) > teacher:
            undistilled = percent(miou["none"])
            yield Finding(
                "warning", f"The teacher ({percent(teacher)}) is behind {student} without it ({undistilled})."
            )
    for cell in found.loc[found["collapsed"], "cell"]:
        yield Finding(
            "warning",
            f"Collapsed: {cell} predicts one class everywhere; its scores say nothing of its method.",
        )
    if distilled.loc[distilled["student"] != TEACHER, "seed"].nunique() == 1:
        yield Finding("warning", ONE_SEED)


def _doubts(warnings: Iterable[str]) -> Iterator[Finding]:
    for warning in warnings:
        yield Finding("warning", warning)


def _verdicts(rows: pd.DataFrame) -> str:
    """`better: lad, attnfd; worse: cwd`."""
    by_verdict = {
        verdict: rows.loc[rows["verdict"] == verdict, "method"]
        for verdict in ("better", "not distinguishable", "worse")
    }
    return "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in by_verdict.items() if len(names))


def _comparison(frame: pd.DataFrame) -> Table:
    columns = (
        _column("student", "left", frame["student"]),
        _column("method", "left", frame["method"]),
        *_scores(frame, "none"),
        _column("parameters", "right", frame["parameters"].map(_millions)),
    )
    return Table(
        "comparison", "Every method, beside the student without distillation.", columns, _groups(frame)
    )


def _ablation(frame: pd.DataFrame) -> Table:
    columns = (
        _column("student", "left", frame["student"]),
        *(_column(layer, "center", frame[layer].map({True: "✓", False: ""})) for layer in LAYERS),
        *_scores(frame, "none"),
    )
    caption = "AttnFD by the layers that it distils, beside the student without distillation."
    return Table("ablation", caption, columns, _groups(frame))


def _settings(frame: pd.DataFrame) -> Table:
    columns = (
        _column("student", "left", frame["student"]),
        _column("variant", "left", frame["variant"]),
        _column("changed", "left", frame["changed"]),
        *_scores(frame, "attnfd"),
    )
    return Table(
        "settings", "AttnFD with these settings changed, beside AttnFD as it is.", columns, _groups(frame)
    )


def _networks(frame: pd.DataFrame) -> Table:
    columns = (
        _column("network", "left", frame["network"]),
        _column("parameters", "right", frame["parameters"].map(_millions)),
        _column("of the teacher's", "right", frame["parameters_share"].map(_share)),
        _column("multiply-adds", "right", frame["multiply_adds"].map(_billions)),
        _column("of the teacher's", "right", frame["multiply_adds_share"].map(_share)),
    )
    return Table("networks", "Size of the networks, and their work on one image.", columns, (len(frame),))


def _data(frame: pd.DataFrame) -> Table:
    splits = [name.removesuffix("_share") for name in map(str, frame) if name.endswith("_share")]
    columns = (
        _column("class", "left", frame["class"]),
        *(_column(f"{split}, %", "right", frame[f"{split}_share"].map(per_cent)) for split in splits),
    )
    caption = "Pixels of every class, as prepare counted them, in per cent of all pixels of a split."
    return Table("data", caption, columns, (len(frame) - 1, 1))


def _scores(frame: pd.DataFrame, baseline: str) -> Iterator[Column]:
    """The columns that follow from `attnfd.analysis.tables.aggregate`."""
    spreads = [
        f"{percent(mean)} ± n/a" if pd.isna(std) else spread(mean, std)
        for mean, std in zip(frame["miou"], frame["miou_std"], strict=True)
    ]
    yield Column("mIoU", "right", _ranked(frame, "miou", spreads))
    yield _column(f"vs. {baseline}", "right", frame["difference"].map(signed))
    yield _column("95 % interval", "center", map(_interval, frame["low"], frame["high"]))
    yield Column("verdict", "left", [_verdict(verdict) for verdict in frame["verdict"]])
    accuracy = frame["mean_accuracy"]
    yield Column("mean class accuracy", "right", _ranked(frame, "mean_accuracy", accuracy.map(percent)))
    yield from _paper(frame)
    runs = zip(frame["seeds"], frame["collapsed"], strict=True)
    yield _column(
        "seeds", "right", [f"{seeds}, {down} collapsed" if down else f"{seeds}" for seeds, down in runs]
    )


def _paper(frame: pd.DataFrame) -> Iterator[Column]:
    """The paper's scores and ours minus the paper's, where it has any."""
    if "paper_miou" not in frame:
        return
    yield _column("paper's mIoU", "right", map(spread, frame["paper_miou"], frame["paper_std"]))
    yield _column("ours − paper's", "right", (frame["miou"] - frame["paper_miou"]).map(signed))
    if frame["paper_accuracy"].notna().any():
        yield _column("paper's accuracy", "right", frame["paper_accuracy"].map(percent))
        difference = frame["mean_accuracy"] - frame["paper_accuracy"]
        yield _column("ours − paper's", "right", difference.map(signed))


def _ranked(frame: pd.DataFrame, column: str, texts: Iterable[str]) -> list[Value]:
    """The texts; the best of every student is marked, and the second of three or more; equals share it."""
    students = frame["student"]
    place = frame[column].map(percent).astype(float).groupby(students).rank(method="dense", ascending=False)
    rivals = students.map(students.value_counts())
    best, second = (place == 1) & (rivals > 1), (place == 2) & (rivals > 2)
    return [
        Value(text, "best" if first else "second" if runner_up else "")
        for text, first, runner_up in zip(texts, best, second, strict=True)
    ]


def _interval(low: float, high: float) -> str:
    return "" if pd.isna(low) else f"{signed(low)} … {signed(high)}"


def _verdict(verdict: str) -> Value:
    return Value(verdict, "better" if verdict == "better" else "worse" if verdict == "worse" else "")


def _column(title: str, align: Align, texts: Iterable[str]) -> Column:
    return Column(title, align, [Value(text) for text in texts])


def _groups(frame: pd.DataFrame) -> tuple[int, ...]:
    return tuple(frame.groupby("student", sort=False).size())


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


def _billions(count: int) -> str:
    return f"{count / 1e9:.2f} G"


def _share(part: float) -> str:
    return f"{100 * part:.1f} %"
