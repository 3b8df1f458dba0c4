"""The report of a dataset: its findings in sentences, and the tables that show them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd

from attnfd.analysis.tables import percent, signed, spread
from attnfd.config.schema import LAYERS
from attnfd.data.prepared import per_cent
from attnfd.paths import TEACHER
from attnfd.report.budget import in_a_unit
from attnfd.report.findings import doubts, findings, interval
from attnfd.report.layout import Align, Column, Page, Picture, Section, Table, Value
from attnfd.report.names import Names
from attnfd.results.style import plain

COMPARISON, ABLATION, SETTINGS, NETWORKS = "Comparison", "Distilled layers", "Other settings", "Networks"
DATA, TUNING, MADE = "Data", "Tuning", "How this was made"
SECTIONS = {
    "comparison": COMPARISON,
    "equal_time": COMPARISON,
    "hours": COMPARISON,
    "public": COMPARISON,
    "ablation": ABLATION,
    "settings": SETTINGS,
    "tuning": TUNING,
    "curves": "Learning curves",
    "gains": "Classes",
    "per_class": "Classes",
    "confusion": "Classes",
    "predictions": "Predictions",
    "attention": "Attention",
    "sizes": NETWORKS,
    "networks": NETWORKS,
    "data": DATA,
    "recipe": MADE,
}
"""The section of a table or picture, by the beginning of its name, in the order of the page."""

READING = (
    "Scores are in per cent, at the original size of the images, from one confusion matrix over the whole "
    "split; void pixels do not count. mIoU is the mean over the classes that occur in the ground truth, the "
    "same classes for every method.",
    "Bold marks the best score of a student; an underline, or italics in Markdown, marks the second.",
    "Differences are paired: the same seeds, the same images. Their 95 % interval comes from a bootstrap of "
    "the images, and with several seeds from Student's t as well. Intervals are not corrected for multiple "
    "comparisons.",
)
SEEDS = (
    "± is the sample standard deviation over the seeds. Better and worse mean that 0 is outside the interval."
)
TEST = (
    "Scores are from the test split, which decides nothing. mIoU on val is from the split on which the "
    "epochs are chosen."
)
PAPER = "The paper's numbers come from its own training; epochs, crops and weights of this recipe may differ."
EVERY = "Every method; Δ is the difference to the student without distillation."
STEPS = "Equal steps. Δ is the difference to the student without distillation."
TIME = (
    "Equal time: every method has the epochs that params.yaml lists for the student. Δ is the difference to "
    "the student without distillation, which is trained in more epochs."
)
HOURS = (
    "Hours or minutes are the time of a training's steps, without validations. report.step_ms has the time "
    "of a step on the machine that measured it."
)
IN_USE = (
    "These are the networks after training. The teacher keeps its attention; a student has connectors and "
    "attention only in training. Multiply-adds are those of the first image that is scored. Latency depends "
    "on the machine: attnfd benchmark models measures it, and the report's run in MLflow shows mIoU over "
    "latency."
)


def page(
    title: str,
    subtitle: str,
    found: pd.DataFrame,
    frames: Mapping[str, pd.DataFrame],
    names: Names,
    *,
    pictures: Sequence[Picture] = (),
    warnings: Iterable[str] = (),
    made: Iterable[str] = (),
) -> Page:
    """The page of a dataset.

    Args:
        found: of `attnfd.analysis.tables.results`.
        frames: by name: `comparison` (split by `attnfd.report.budget`), `ablation`, `settings`, `networks`
            and `data` from the functions of that module; `recipe` from `attnfd.report.provenance`; `public`
            from `attnfd.report.public`; if there are trials, `tuning` from `attnfd.analysis.trials`.
        pictures: `SECTIONS` has the section of each.
        warnings: of `prepare`.
        made: sentences on how the report was made.
    """
    tables = list(_tables(frames, names))
    texts = {NETWORKS: (IN_USE,), MADE: tuple(made)}
    sections = (
        Section(
            title,
            text=texts.get(title, ()),
            tables=tuple(table for table in tables if _section(table.name) == title),
            pictures=tuple(picture for picture in pictures if _section(picture.name) == title),
        )
        for title in dict.fromkeys(SECTIONS.values())
    )
    comparison = frames["comparison"]
    notes = [*READING]
    if comparison["seeds"].max() > 1:
        notes.append(SEEDS)
    if _tested(comparison):
        notes.append(TEST)
    if comparison["hours"].notna().any():
        notes.append(HOURS)
    if "paper_miou" in comparison:
        notes.append(PAPER)
    return Page(
        title,
        subtitle,
        (
            Section("Findings", findings=(*findings(found, frames, names), *doubts(warnings))),
            *(section for section in sections if section.tables or section.pictures),
            Section("Notes", text=tuple(notes)),
        ),
    )


def for_a_paper(frame: pd.DataFrame, names: Names) -> Table:
    """The comparison as a paper prints it: method, mIoU, the gain over no distillation, parameters."""
    scores = map(spread, frame["miou"], frame["miou_std"])
    columns = (
        _column("Student", "left", frame["student"].map(names.student)),
        _column("Method", "left", frame["method"].map(names.method)),
        Column("mIoU (%)", "right", _ranked(frame, "miou", scores)),
        _column("Δ", "right", frame["difference"].map(signed)),
        _column("Params (M)", "right", frame["parameters"].map(lambda count: f"{count / 1e6:.1f}")),
    )
    caption = "mIoU of every method, and its difference Δ to the student without distillation."
    return Table("comparison", caption, columns, _groups(frame))


def _section(name: str) -> str:
    return next(section for start, section in SECTIONS.items() if name.startswith(start))


def _tables(frames: Mapping[str, pd.DataFrame], names: Names) -> Iterator[Table]:
    equal_time = "equal_time" in frames
    yield _comparison(frames["comparison"], names, "comparison", STEPS if equal_time else EVERY)
    if equal_time:
        yield _comparison(frames["equal_time"], names, "equal_time", TIME)
    if not frames["public"].empty:
        yield _public(frames["public"], names)
    if not frames["ablation"].empty:
        yield _ablation(frames["ablation"], names)
    if not frames["settings"].empty:
        yield _settings(frames["settings"], names)
    if "tuning" in frames:
        yield _tuning(frames["tuning"], names)
    yield _networks(frames["networks"], names)
    yield _data(frames["data"])
    yield _recipe(frames["recipe"])


def _comparison(frame: pd.DataFrame, names: Names, name: str, caption: str) -> Table:
    columns = (
        _column("student", "left", frame["student"].map(names.student)),
        _column("method", "left", frame["method"].map(names.method)),
        *_scores(frame),
        *_budget(frame),
        _column("parameters", "right", frame["parameters"].map(_millions)),
    )
    return Table(name, caption, columns, _groups(frame))


def _budget(frame: pd.DataFrame) -> Iterator[Column]:
    """The epochs of a training if they differ, and its time if its step is measured."""
    students = frame["student"] != TEACHER
    if frame.loc[students, "epochs"].nunique() > 1:
        yield _column("epochs", "right", frame["epochs"].map("{:.0f}".format).where(students, ""))
    if frame["hours"].notna().any():
        unit, times = in_a_unit(frame["hours"])
        yield _column(unit, "right", times.map(lambda time: "" if pd.isna(time) else f"{time:.2f}"))


def _public(frame: pd.DataFrame, names: Names) -> Table:
    columns = (
        _column("student", "left", frame["student"].map(names.student)),
        _column("network", "left", frame["network"]),
        _column("trained with", "left", frame["training"]),
        _column("mIoU on val", "right", frame["miou"].map(percent)),
        _column("source", "left", frame["source"].replace("", "this report")),
    )
    caption = (
        "Students without a teacher: those of this run and of the paper, and public ones with other training."
    )
    return Table("public", caption, columns, _groups(frame))


def _ablation(frame: pd.DataFrame, names: Names) -> Table:
    columns = (
        _column("student", "left", frame["student"].map(names.student)),
        *(_column(layer, "center", frame[layer].map({True: "✓", False: ""})) for layer in LAYERS),
        *_scores(frame),
    )
    caption = "AttnFD by the layers that it distils; Δ is the difference to the student without distillation."
    return Table("ablation", caption, columns, _groups(frame))


def _settings(frame: pd.DataFrame, names: Names) -> Table:
    columns = (
        _column("student", "left", frame["student"].map(names.student)),
        _column("variant", "left", frame["variant"].map(names.method)),
        *_scores(frame),
        _column("changed", "left", frame["changed"]),
    )
    caption = "AttnFD with other settings; Δ is the difference to AttnFD with its own."
    return Table("settings", caption, columns, _groups(frame))


def _tuning(frame: pd.DataFrame, names: Names) -> Table:
    scored = zip(frame["miou"].map(percent), frame["chosen"], strict=True)
    columns = (
        _column("method", "left", frame["method"].map(names.method)),
        _column("factor", "right", frame["factor"].map(str)),
        _column("weight", "right", frame["weight"].map("{:g}".format)),
        Column("mIoU", "right", [Value(text, "best" if taken else "") for text, taken in scored]),
        _column("trials", "right", frame["trials"].map(str)),
    )
    caption = (
        "Trials of the weight of every method: mean mIoU on training images that were held out. Bold marks "
        "the weight that attnfd choose takes."
    )
    return Table("tuning", caption, columns, tuple(frame.groupby("method", sort=False).size()))


def _networks(frame: pd.DataFrame, names: Names) -> Table:
    called = [names.student(key) + " (teacher)" * (key == TEACHER) for key in frame["network"]]
    columns = (
        _column("network", "left", called),
        _column("parameters", "right", frame["parameters"].map(_millions)),
        _column("of the teacher's", "right", frame["parameters_share"].map(_share)),
        _column("multiply-adds", "right", frame["multiply_adds"].map(_billions)),
        _column("of the teacher's", "right", frame["multiply_adds_share"].map(_share)),
    )
    return Table("networks", "Size of the networks, and their cost for one image.", columns, (len(frame),))


def _recipe(frame: pd.DataFrame) -> Table:
    columns = tuple(_column(str(name), "left", frame[name]) for name in frame)
    caption = "Settings of the trainings, as params.yaml names them, and those of the paper (sec. 4.2)."
    return Table("recipe", caption, columns, (len(frame),))


def _data(frame: pd.DataFrame) -> Table:
    splits = [name.removesuffix("_share") for name in map(str, frame) if name.endswith("_share")]
    columns = (
        _column("class", "left", frame["class"].map(plain)),
        *(_column(f"{split}, %", "right", frame[f"{split}_share"].map(per_cent)) for split in splits),
    )
    caption = "Pixels of every class in per cent of all pixels of a split, as prepare counted them."
    return Table("data", caption, columns, (len(frame) - 1, 1))


def _scores(frame: pd.DataFrame) -> Iterator[Column]:
    """The columns from `attnfd.analysis.tables.aggregate`, mIoU first."""
    yield Column("mIoU", "right", _ranked(frame, "miou", map(spread, frame["miou"], frame["miou_std"])))
    yield _column("Δ", "right", frame["difference"].map(signed))
    yield _column("95 % interval", "center", map(interval, frame["low"], frame["high"]))
    if frame["verdict"].any():
        yield Column("verdict", "left", [_verdict(verdict) for verdict in frame["verdict"]])
    accuracy = frame["mean_accuracy"]
    yield Column("mean class accuracy", "right", _ranked(frame, "mean_accuracy", accuracy.map(percent)))
    if _tested(frame):
        yield _column("mIoU on val", "right", frame["val_miou"].map(percent))
    yield from _paper(frame)
    if frame["seeds"].max() > 1 or frame["collapsed"].any():
        runs = zip(frame["seeds"], frame["collapsed"], strict=True)
        texts = [f"{seeds}, {down} collapsed" if down else f"{seeds}" for seeds, down in runs]
        yield _column("seeds", "right", texts)


def _tested(frame: pd.DataFrame) -> bool:
    """Whether the scores are from a test split."""
    return bool((frame["split"] == "test").all())


def _paper(frame: pd.DataFrame) -> Iterator[Column]:
    """The paper's scores, and ours minus the paper's, if the paper has any."""
    if "paper_miou" not in frame:
        return
    yield _column("paper's mIoU", "right", map(spread, frame["paper_miou"], frame["paper_std"]))
    yield _column("ours − paper's", "right", (frame["miou"] - frame["paper_miou"]).map(signed))
    if frame["paper_accuracy"].notna().any():
        yield _column("paper's accuracy", "right", frame["paper_accuracy"].map(percent))
        difference = frame["mean_accuracy"] - frame["paper_accuracy"]
        yield _column("ours − paper's", "right", difference.map(signed))


def _ranked(frame: pd.DataFrame, column: str, texts: Iterable[str]) -> list[Value]:
    """The texts, marked for every student: the best, and the second of three or more. Equals share a mark."""
    students = frame["student"]
    place = frame[column].map(percent).astype(float).groupby(students).rank(method="dense", ascending=False)
    rivals = students.map(students.value_counts())
    best, second = (place == 1) & (rivals > 1), (place == 2) & (rivals > 2)
    return [
        Value(text, "best" if first else "second" if runner_up else "")
        for text, first, runner_up in zip(texts, best, second, strict=True)
    ]


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
