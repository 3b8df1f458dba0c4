"""The page: its sentences, and the same numbers in Markdown, HTML and LaTeX."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from attnfd.analysis import tables
from attnfd.config.schema import Report, Student
from attnfd.paths import Cell
from attnfd.report import budget, html, latex, markdown, paper, provenance, public, vector
from attnfd.report.layout import Column, Finding, Page, Picture, Section, Table, Value
from attnfd.report.names import Names
from attnfd.report.page import for_a_paper, page
from attnfd.results import pictures
from tests.miniature import PROJECT
from tests.report import synthetic

LAYERS_THAT_RAN = ("note", "note")
"""Findings on the ablation: the best layers, then all of them."""
NASTY = "a_b|<i>&%$#{}~^\\*[x]`"


def describe(settings, mious, reader="shapes", shown=(), tuning=None, **write):
    cells = synthetic.results(settings, mious, **write)
    found, history = tables.results(cells), tables.curves(cells)
    hours = budget.with_hours(history, settings, synthetic.card())
    comparison = budget.beside(tables.comparison(found), history, hours)
    parts = budget.split(comparison, settings, "tiny")
    frames = {
        **{name: paper.comparison(part, reader) for name, part in parts.items()},
        "ablation": paper.ablation(tables.ablation(found, settings, "tiny"), reader),
        "settings": tables.settings(found, settings),
        "public": public.baselines(comparison, reader),
        "networks": tables.networks(comparison),
        "data": tables.data(synthetic.card()),
        "recipe": provenance.recipe(settings, "tiny"),
    }
    if tuning is not None:
        frames["tuning"] = tuning
    return page("Title", "subtitle", found, frames, Names.of(settings, "tiny"), pictures=shown)


def section(described, title):
    return next(section for section in described.sections if section.title == title)


def findings(described):
    return [(found.kind, found.sentence) for found in section(described, "Findings").findings]


def columns(table):
    return {column.title: [value.text for value in column.values] for column in table.columns}


def marked(table, title, mark):
    column = next(column for column in table.columns if column.title == title)
    return [value.text for value in column.values if value.mark == mark]


def test_findings_of_three_seeds():
    second = {f"resnet18-kd-{seed}": miou for seed, miou in enumerate((0.71, 0.73, 0.68))}
    found = findings(describe(synthetic.params(seeds=[0, 1, 2]), synthetic.THREE_SEEDS | second))
    assert [kind for kind, _ in found] == ["better", "not significant", "note", *LAYERS_THAT_RAN]
    assert found[0][1].startswith("ResNet-18: AttnFD is better than no distillation by +10.00 mIoU (")
    assert found[0][1].endswith("3 seeds, 4 images).")
    # kd has 70.67 on average; attnfd is better with only one seed.
    expected = "ResNet-18: AttnFD does not differ significantly from KD (the best other method): +1.33 mIoU"
    assert found[1][1].startswith(expected)
    # kd − none: 0.11, 0.11, 0.04, deviation 0.04; so 0.087 is less than 4.30 · 0.04 / √3 = 0.10.
    assert found[2][1] == "ResNet-18, compared with no distillation: better: AttnFD; not significant: KD."


def test_none_is_said_once_where_it_is_the_runner_up():
    found = findings(describe(synthetic.params(seeds=[0, 1, 2]), synthetic.THREE_SEEDS))
    assert [kind for kind, _ in found] == ["better", "note", *LAYERS_THAT_RAN]
    assert found[1][1] == "ResNet-18, compared with no distillation: better: AttnFD; not significant: KD."


def test_variants_are_findings_too():
    settings = synthetic.params(seeds=[0, 1, 2], ablate={"variants": ["plain", "early", "b", "ed"]})
    more = {
        f"resnet18-attnfd-{variant}-{seed}": miou
        for variant, mious in (("plain", (0.76, 0.77, 0.81)), ("early", (0.69, 0.74, 0.73)))
        for seed, miou in enumerate(mious)
    }
    found = findings(describe(settings, synthetic.THREE_SEEDS | more))[2:]
    assert [kind for kind, _ in found] == ["note"] * 4
    best, verdicts, varied, compared = (sentence for _, sentence in found)
    full = "backbone + encoder + decoder"
    assert best.startswith(
        f"ResNet-18: of all layers of AttnFD, {full} scores highest, 72.00 mIoU on average, which is +10.00 "
        "compared with no distillation (95 % interval ["
    )
    assert verdicts == (
        "ResNet-18, layers of AttnFD compared with no distillation: "
        f"better: encoder + decoder, {full}; not significant: backbone."
    )
    assert varied.startswith(
        "ResNet-18: of all variants of AttnFD, plain scores highest, 78.00 mIoU on average, which is +6.00 "
        "compared with AttnFD (95 % interval ["
    )
    # early − attnfd: −0.01, +0.03, −0.02.
    assert compared == (
        "ResNet-18, variants of AttnFD compared with AttnFD: better: plain; not significant: early."
    )


def test_variants_of_one_seed_have_no_verdict():
    settings = synthetic.params(ablate={"variants": ["plain"]})
    mious = {key: miou for key, miou in synthetic.ONE_SEED.items() if not key.endswith(("-b-0", "-ed-0"))}
    found = findings(describe(settings, mious | {"resnet18-attnfd-plain-0": 0.66}))
    assert found[1] == (
        "note",
        "ResNet-18: of all variants of AttnFD, plain scores highest, 66.00 mIoU, which is −4.00 compared "
        "with AttnFD (95 % interval [−4.00, −4.00]).",
    )
    assert found[2][0] == "warning"


def test_public_baselines_are_beside_the_papers_and_ours():
    described = describe(synthetic.params(), synthetic.ONE_SEED, reader="cityscapes")
    (table,) = (table for table in section(described, "Comparison").tables if table.name == "public")
    assert columns(table)["mIoU on val"] == ["60.00", "64.09", "74.21", "76.89"]
    assert columns(table)["source"][:2] == ["this report", "the paper's tables"]
    assert columns(table)["student"] == ["ResNet-18"] * 4
    described = describe(synthetic.params(), synthetic.ONE_SEED, reader="camvid", split="test")
    (table,) = (table for table in section(described, "Comparison").tables if table.name == "public")
    assert columns(table)["mIoU on val"] == ["55.00", "66.92"]
    plain = describe(synthetic.params(), synthetic.ONE_SEED)
    assert [table.name for table in section(plain, "Comparison").tables] == ["comparison"]


def test_the_page_on_methods_has_the_same_public_baselines():
    text = (PROJECT / "docs/methods.md").read_text(encoding="utf-8")
    for found in (found for of_reader in public.PUBLIC.values() for found in of_reader):
        address = found.source.partition(": ")[2]
        assert re.search(
            rf"\| {re.escape(found.network)} \| {re.escape(found.training)} \| {found.miou:.2f} \| "
            rf".*{address}",
            text,
        )


def test_equal_steps_and_equal_time_are_two_tables():
    settings = timed()
    described = describe(settings, TIMED)
    steps, time = section(described, "Comparison").tables
    assert (steps.name, time.name) == ("comparison", "equal_time")
    assert columns(steps)["student"] == ["ResNet-101", "ResNet-18", "ResNet-18"]
    assert columns(steps)["Δ"] == ["", "", "+10.00"]
    assert columns(time)["student"] == ["ResNet-101", "MobileNetV2", "MobileNetV2"]
    assert columns(time)["Δ"] == ["", "", "−5.00"]
    # Two epochs with one step each: four images in batches of eight.
    assert columns(steps)["hours"] == ["", "0.50", "1.00"]
    assert columns(time)["hours"] == ["", "1.00", "1.00"]
    assert "epochs" not in columns(time)  # all have two
    texts = [sentence for _, sentence in findings(described)]
    assert any(text.startswith("MobileNetV2: AttnFD differs from no distillation by −5.00") for text in texts)
    assert any("without validations" in note for note in section(described, "Notes").text)


@pytest.mark.parametrize(
    ("longest", "unit", "shown"),
    [(1.0, "hours", ["", "0.50", "1.00"]), (0.5, "minutes", ["", "15.00", "30.00"])],
)
def test_times_below_an_hour_are_minutes(longest, unit, shown):
    settings = timed()
    for of_method in settings.report.step_ms[synthetic.card().name].values():
        of_method.update({method: longest * time for method, time in of_method.items()})
    assert columns(section(describe(settings, TIMED), "Comparison").tables[0])[unit] == shown


@pytest.mark.parametrize(("images", "steps"), [(4, 1), (8, 1), (9, 1), (10, 2), (16, 2)])
def test_a_last_batch_of_one_image_takes_no_time(images, steps):
    settings = timed()
    history = pd.DataFrame(
        [("resnet18", "none", "", 3), ("resnet18", "kd", "", 3), ("resnet18", "attnfd", "b", 3)]
    )
    history.columns = ["student", "method", "variant", "epoch"]
    rows = budget.with_hours(history, settings, synthetic.card(images))
    assert rows["hours"].tolist() == [0.25 * 3 * steps]


def test_epochs_are_a_column_where_they_differ():
    settings = synthetic.params()
    cells = synthetic.results(settings, synthetic.ONE_SEED)
    (cell,) = (cell for cell in cells if cell.name == "resnet18-kd-0")
    history = tables.curves(cells)
    history = history[(history["cell"] != cell.name) | (history["epoch"] < 2)]
    table = budget.beside(tables.comparison(tables.results(cells)), history, history.assign(hours=0).head(0))
    assert table["epochs"].tolist() == [2, 2, 1, 2]
    assert table["hours"].isna().all()


TIMED = {
    "teacher": 0.8, "resnet18-none-0": 0.5, "resnet18-attnfd-0": 0.6,
    "mobilenetv2-none-0": 0.6, "mobilenetv2-attnfd-0": 0.55,
    "resnet18-attnfd-b-0": 0.5, "resnet18-attnfd-ed-0": 0.5,
}  # fmt: skip


def timed():
    """MobileNetV2 is trained in equal time and evaluated on images of val."""
    settings = synthetic.params(methods=["none", "attnfd"], students=["resnet18", "mobilenetv2"])
    own = {"resnet18": {}, "mobilenetv2": {"tiny": {"none": 2}}}
    settings.student = lambda key: Student(backbone=key, dropout=(0.5, 0.1), epochs=own[key])
    hour = 3.6e6
    settings.report = Report(
        title="Tiny",
        step_ms={
            "tiny": {
                "resnet18": {"none": hour / 4, "attnfd": hour / 2},
                "mobilenetv2": dict.fromkeys(("none", "attnfd"), hour / 2),
            }
        },
    )
    distill = settings.distill("tiny").model_copy(update={"splits": ("val",)})
    settings.distill = lambda dataset: distill
    return settings


def test_one_seed_is_warned_of():
    described = describe(synthetic.params(), synthetic.ONE_SEED)
    kind, sentence = findings(described)[-1]
    assert kind == "warning"
    assert sentence.startswith("One seed: each difference compares two trained networks, not two methods.")
    table = columns(section(described, "Comparison").tables[0])
    assert table["mIoU"] == ["80.00", "60.00", "55.00", "70.00"]
    assert table["Δ"] == ["", "", "−5.00", "+10.00"]
    assert table["95 % interval"][3] == "[+10.00, +10.00]"  # all images are equal
    assert not {"verdict", "seeds"} & set(table)


def test_scores_of_a_test_split_have_those_of_val_beside_them():
    described = describe(synthetic.params(), synthetic.ONE_SEED, split="test")
    table = columns(section(described, "Comparison").tables[0])
    assert table["mIoU"] == ["80.00", "60.00", "55.00", "70.00"]
    assert table["mIoU on val"] == ["75.00", "55.00", "50.00", "65.00"]
    assert any("from the test split" in note for note in section(described, "Notes").text)
    plain = describe(synthetic.params(), synthetic.ONE_SEED)
    assert "mIoU on val" not in columns(section(plain, "Comparison").tables[0])


def test_trials_are_a_table_with_the_chosen_factor_in_bold():
    tried = pd.DataFrame(
        [
            ("kd", "0.3", 3.0, 2, 0.4, False),
            ("kd", "1", 10.0, 2, 0.5, True),
            ("cwd", "1", 3.0, 2, 0.45, True),
        ],
        columns=["method", "factor", "weight", "trials", "miou", "chosen"],
    )
    described = describe(synthetic.params(), synthetic.ONE_SEED, tuning=tried)
    (table,) = section(described, "Tuning").tables
    assert columns(table)["mIoU"] == ["40.00", "50.00", "45.00"]
    assert columns(table)["weight"] == ["3", "10", "3"]
    assert marked(table, "mIoU", "best") == ["50.00", "45.00"]
    assert table.groups == (2, 1)


def test_one_seed_has_no_verdict_and_is_said_once():
    described = describe(synthetic.params(), synthetic.ONE_SEED)
    kinds = [kind for kind, _ in findings(described)]
    assert kinds == ["note", "note", "warning"]
    expected = "ResNet-18: AttnFD differs from no distillation by +10.00 mIoU (95 % interval over images ["
    assert findings(described)[0][1].startswith(expected)
    text = markdown.write(described)
    assert text.lower().count("one seed") == 1
    assert not re.search(r"n/a|±|\b(better|worse)\b", text)


def test_a_worse_method_is_called_so():
    swapped = {name: 1 - miou for name, miou in synthetic.THREE_SEEDS.items()}
    found = findings(describe(synthetic.params(seeds=[0, 1, 2]), swapped))
    assert found[0][0] == "worse"
    assert "AttnFD is worse than no distillation by −10.00 mIoU" in found[0][1]
    assert found[2][1] == "ResNet-18, compared with no distillation: not significant: KD; worse: AttnFD."


def test_a_collapsed_student_is_named():
    described = describe(synthetic.params(), synthetic.ONE_SEED, collapsed=["resnet18-kd-0"])
    expected = (
        "Collapsed: resnet18-kd-0 predicts one class everywhere; its scores say nothing about its method."
    )
    assert ("warning", expected) in findings(described)
    assert columns(section(described, "Comparison").tables[0])["seeds"] == ["1", "1", "1, 1 collapsed", "1"]


def test_a_weak_teacher_is_warned_of():
    described = describe(synthetic.params(), {**synthetic.ONE_SEED, "teacher": 0.59})
    assert (
        "warning",
        "The teacher (59.00) scores lower than ResNet-18 without distillation (60.00).",
    ) in findings(described)


def test_nothing_is_said_of_methods_that_did_not_run():
    kept = {
        name: miou
        for name, miou in synthetic.ONE_SEED.items()
        if name not in ("resnet18-kd-0", "resnet18-attnfd-0")
    }
    described = describe(synthetic.params(methods=["none"]), kept)
    (variants, warning) = findings(described)
    assert variants[1].startswith(
        "ResNet-18: of all layers of AttnFD, encoder + decoder scores highest, 68.00 mIoU, which is +8.00"
    )
    assert warning[0] == "warning"
    assert columns(section(described, "Distilled layers").tables[0])["encoder"] == ["", "", "✓"]


def test_the_best_and_the_second_of_a_student_are_marked():
    table = section(describe(synthetic.params(), synthetic.ONE_SEED), "Comparison").tables[0]
    assert table.groups == (1, 3)
    assert marked(table, "mIoU", "best") == ["70.00"]
    assert marked(table, "mIoU", "second") == ["60.00"]
    two = describe(synthetic.params(methods=["none", "attnfd"]),
                   {name: miou for name, miou in synthetic.ONE_SEED.items() if "kd" not in name})  # fmt: skip
    table = section(two, "Comparison").tables[0]
    assert (marked(table, "mIoU", "best"), marked(table, "mIoU", "second")) == (["70.00"], [])


def test_equals_share_the_first_place():
    equal = {**synthetic.ONE_SEED, "resnet18-kd-0": 0.7}
    table = section(describe(synthetic.params(), equal), "Comparison").tables[0]
    assert marked(table, "mIoU", "best") == ["70.00"] * 2
    assert marked(table, "mIoU", "second") == ["60.00"]


def test_the_paper_is_beside_what_it_has():
    described = describe(synthetic.params(), synthetic.ONE_SEED, reader="voc")
    table = columns(section(described, "Comparison").tables[0])
    assert table["paper's mIoU"] == ["77.85", "67.50", "69.13 ± 0.11", "73.09 ± 0.06"]
    assert table["ours − paper's"] == ["+2.15", "−7.50", "−14.13", "−3.09"]
    assert "paper's accuracy" not in table
    layers = section(described, "Distilled layers").tables[0]
    assert columns(layers)["paper's accuracy"] == ["76.49", "78.88", "82.68", "82.95"]
    last = [value.text for value in layers.columns[-1].values]
    assert last == ["−6.49", "−3.88", "−4.68", "−2.95"]
    assert any("its own training" in text for text in section(described, "Notes").text)
    plain = columns(section(describe(synthetic.params(), synthetic.ONE_SEED), "Comparison").tables[0])
    assert not [title for title in plain if "paper" in title]


def test_a_table_without_rows_of_its_own_is_left_out():
    titles = [section.title for section in describe(synthetic.params(), synthetic.ONE_SEED).sections]
    assert titles == [
        "Findings",
        "Comparison",
        "Distilled layers",
        "Networks",
        "Data",
        "How this was made",
        "Notes",
    ]


def test_the_data_are_shown_as_prepare_counted_them_and_its_warnings_are_findings():
    found = tables.results(synthetic.results(synthetic.params(), synthetic.ONE_SEED))
    history = tables.curves(Cell.all(synthetic.params().run, "tiny"))
    comparison = budget.beside(tables.comparison(found), history, history.assign(hours=0).head(0))
    frames = {
        "comparison": comparison,
        "public": public.baselines(comparison, "shapes"),
        "ablation": tables.ablation(found, synthetic.params(), "tiny"),
        "settings": tables.settings(found, synthetic.params()),
        "networks": tables.networks(comparison),
        "data": tables.data(synthetic.card()),
        "recipe": provenance.recipe(synthetic.params(), "tiny"),
    }
    names = Names.of(synthetic.params(), "tiny")
    described = page("Title", "subtitle", found, frames, names, warnings=synthetic.WARNINGS)
    assert findings(described)[-1] == ("warning", "No mask has a pixel of class star.")
    assert columns(section(described, "Data").tables[0]) == {
        "class": ["ground", "square", "star", "void"],
        "val, %": ["87.50", "0.001", "none", "12.50"],
    }
    assert frames["data"]["val_pixels"].tolist() == [874_990, 10, 0, 125_000]


def test_pictures_are_in_their_sections():
    shown = (
        Picture("predictions_resnet18", "seen"),
        Picture("comparison", "compared"),
        Picture("gains", "gained"),
    )
    described = describe(synthetic.params(), synthetic.ONE_SEED, shown=shown)
    assert section(described, "Comparison").pictures == shown[1:2]
    assert section(described, "Classes").pictures == shown[2:]
    assert section(described, "Predictions").pictures == shown[:1]


SECOND = Value("−3", "second")
SAMPLE = Page(
    NASTY,
    NASTY,
    (
        Section("Findings", findings=(Finding("warning", NASTY), Finding("not significant", "so"))),
        Section(
            NASTY,
            text=(NASTY,),
            tables=(
                Table(
                    "sample",
                    NASTY,
                    (
                        Column("name", "left", [Value(NASTY), Value("two"), Value("")]),
                        Column("50 %", "right", [Value("1 ± 2", "best"), SECOND, Value("", "best")]),
                        Column("on", "center", [Value("✓"), Value("0 … 1"), Value("better", "better")]),
                    ),
                    (1, 2),
                ),
            ),
            pictures=(Picture("shown", NASTY),),
        ),
    ),
)  # fmt: skip
CELLS = [[NASTY, "1 ± 2", "✓"], ["two", "−3", "0 … 1"], ["", "", "better"]]


FILES = {
    "figures/shown.svg": vector.files(pictures.confusion({"": np.eye(2, dtype=int)}, [NASTY, "b"]), "shown")[
        0
    ],
    "pdf/shown.pdf": b"%PDF",
    "tables/sample.csv": b"a,b",
    "tables/sample.tex": b"",
}


class Reader(HTMLParser):
    """The content that a browser shows: tables, and every attribute that could load a file."""

    def __init__(self):
        super().__init__()
        self.rows, self.text, self.attributes, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, key, value) for key, value in attrs]
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        self.text.append(data)


def test_html_has_everything_in_it_and_escapes_names():
    text = html.write(SAMPLE, FILES)
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    assert reader.rows == [["name", "50 %", "on"], *CELLS]
    # Title twice, subtitle, contents, finding, heading, text, a value, and two captions that follow links.
    assert [text.strip() for text in reader.text].count(NASTY) == 10
    loading = [value for _, key, value in reader.attributes if key in ("src", "href", "srcset")]
    offered = [value for tag, key, value in reader.attributes if (tag, key) == ("a", "download")]
    assert offered == ["sample.csv", "sample.tex", "shown.pdf"]
    assert "data:text/csv;base64,YSxi" in loading
    anchors = {value for _, key, value in reader.attributes if key == "id"}
    assert all(value.startswith("data:") or value.removeprefix("#") in anchors for value in loading)
    assert not re.search(r"https?:|//|@import|url\((?!#)", re.sub('base64,[^"]*', "", text))


def test_html_marks_values():
    reader = Reader()
    reader.feed(html.write(SAMPLE, FILES))
    classes = [set(value.split()) for tag, key, value in reader.attributes if (tag, key) == ("td", "class")]
    assert classes[:3] == [{"left"}, {"right", "best"}, {"center"}]
    assert classes[-1] == {"center", "better"}


def test_markdown_has_the_same_table():
    lines = [line for line in markdown.write(SAMPLE).splitlines() if line.startswith("|")]
    assert lines[:2] == ["| name | 50 % | on |", "| :-- | --: | :-: |"]
    assert lines[3] == "| two | *−3* | 0 … 1 |"
    assert lines[4] == "|  |  | better |"
    unescaped = [re.sub(r"\\(.)", r"\1", cell) for cell in re.split(r"(?<!\\)\|", lines[2])[1:-1]]
    assert [cell.strip() for cell in unescaped] == [NASTY, "**1 ± 2**", "✓"]


def test_markdown_marks_warnings():
    text = markdown.write(SAMPLE)
    assert "- **Warning**: a\\_b" in text
    assert "- so\n" in text
    assert "](figures/shown.svg)" in text


COMMANDS = {
    "centering", "caption", "label", "toprule", "midrule", "bottomrule", "textbf", "underline", "pm",
    "bullet", "dots", "textasciitilde", "textasciicircum", "textbackslash", "textless", "textgreater",
    "multirow", "footnotesize", "setlength", "tabcolsep", "times", "Delta",
}  # fmt: skip


def check_latex(text, columns):
    """Faults that stop LaTeX: environments, braces, dollars, unknown commands, columns of a row."""
    text = re.sub(r"(?m)^%.*\n|(?<={)%$", "", text)
    opened = []
    for kind, name in re.findall(r"\\(begin|end){(\w+\*?)}", text):
        assert kind == "begin" or opened.pop() == name
        opened += [name] * (kind == "begin")
    assert not opened
    plain = re.sub(r"\\\\|\\[&%$#_{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    assert not re.search(r"[%#~^]", plain)
    assert set(re.findall(r"\\([A-Za-z]+)", plain)) <= {"begin", "end", *COMMANDS}
    assert plain.isascii()
    (body,) = re.findall(r"\\toprule\n(.*)\\bottomrule", text, re.DOTALL)
    rows = [row for row in body.split("\n") if row and row != r"\midrule"]
    assert all(row.endswith(r" \\") for row in rows)
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [columns - 1] * len(rows)
    return rows


def test_latex_has_the_same_table():
    (table,) = SAMPLE.sections[1].tables
    text = latex.write(table, "tiny-sample")
    rows = check_latex(text, 3)
    assert r"\begin{tabular}{lrc}" in text
    assert r"\label{tab:tiny-sample}" in text
    assert rows[0] == r"name & 50 \% & on \\"
    assert rows[1].endswith(r"& \textbf{1 $\pm$ 2} & $\bullet$ \\")
    assert rows[2] == r"two & \underline{$-$3} & 0 \dots{} 1 \\"
    assert rows[3] == r" &  & better \\"
    assert text.count("\\midrule") == 2


@pytest.mark.parametrize("reader", ["shapes", "voc", "cityscapes"])
def test_latex_of_every_table(reader):
    settings = synthetic.params(ablate={"variants": ["plain", "b"]})
    mious = {name: miou for name, miou in synthetic.ONE_SEED.items() if "-ed-" not in name}
    described = describe(settings, mious | {"resnet18-attnfd-plain-0": 0.66}, reader)
    found = [table for section in described.sections for table in section.tables]
    assert [table.name for table in found] == [
        "comparison", *["public"] * (reader != "shapes"), "ablation", "settings", "networks", "data", "recipe"
    ]  # fmt: skip
    for table in found:
        check_latex(latex.write(table, table.name), len(table.columns))


def test_latex_for_a_paper_has_four_columns_beside_the_student():
    settings = synthetic.params()
    comparison = tables.comparison(tables.results(synthetic.results(settings, synthetic.ONE_SEED)))
    text = latex.write(for_a_paper(comparison, Names.of(settings, "tiny")), "tiny-comparison")
    rows = check_latex(text, 5)
    assert text.splitlines()[1] == r"\begin{table}[t]"
    assert "resizebox" not in text
    assert rows == [
        r"Student & Method & mIoU (\%) & $\Delta$ & Params (M) \\",
        r"ResNet-101 & teacher & 80.00 &  & 16.6 \\",
        r"\multirow{3}{*}{ResNet-18} & no distillation & \underline{60.00} &  & 16.6 \\",
        r" & KD & 55.00 & $-$5.00 & 16.6 \\",
        r" & AttnFD & \textbf{70.00} & +10.00 & 16.6 \\",
    ]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_and_fits(tmp_path):
    settings = synthetic.params()
    described = describe(settings, synthetic.ONE_SEED, reader="voc")
    full = [table for section in described.sections for table in section.tables]
    comparison = tables.comparison(tables.results(Cell.all(settings.run, "tiny")))
    found = [for_a_paper(comparison, Names.of(settings, "tiny")), *full]
    body = "".join(latex.write(table, f"{place}") for place, table in enumerate(found))
    preamble = r"\documentclass[twocolumn]{article}\usepackage{booktabs,multirow}\begin{document}"
    (tmp_path / "paper.tex").write_text(preamble + "\n" + body + r"\end{document}", encoding="ascii")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    log = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert "Output written on paper.pdf" in log
    assert "Overfull" not in log


def test_markdown_and_html_show_the_same_cells():
    described = describe(synthetic.params(), synthetic.ONE_SEED, reader="voc")
    reader = Reader()
    reader.feed(html.write(described, {}))
    lines = [line for line in markdown.write(described).splitlines() if re.match(r"\| (?!:--|--:)", line)]
    cells = [[line.replace("*", "").strip() for line in line.split("|")[1:-1]] for line in lines]
    # The first column in Markdown is a line above its rows in HTML.
    heads = {"ResNet-18", "ResNet-101"}
    texts = [[re.sub(r"\\(.)", r"\1", cell) for cell in row] for row in cells]
    headed = [
        len(row) > 5 or row[-1].startswith(("this report", "the paper's tables", "CIRKD")) for row in texts
    ]
    headed = [
        row[0] == "student" or (long and row[0] in heads) for row, long in zip(texts, headed, strict=True)
    ]
    plain = [row[first:] for row, first in zip(texts, headed, strict=True)]
    assert plain == [row for row in reader.rows if row[1:] != [""]]
    assert [row[0] for row in reader.rows if row[1:] == [""]] == ["ResNet-101", *["ResNet-18"] * 3]
    assert len(cells) == 4 + 1 + 3 + 1 + 4 + 1 + 2 + 1 + 4 + 1 + 30 + 1


def test_a_table_of_methods_shows_the_score_beside_the_name_that_stays():
    text = html.write(describe(synthetic.params(), synthetic.ONE_SEED), {})
    titles = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', text)
    assert titles[:3] == ["method", "mIoU", "Δ"]
    assert re.search(r"td:first-child \{ position: sticky", text)
