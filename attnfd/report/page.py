"""The report itself: sentences, tables and figures in Markdown."""

from collections.abc import Mapping

import pandas as pd

from attnfd.report.gallery import Picture
from attnfd.report.tables import TEACHER, markdown, percent, signed, spread

PAGE = """\
# {title}: {dataset}

{images} validation images at their original size. Scores are in per cent; ± is the sample standard deviation
over the seeds.

{findings}
## Comparison

{comparison}
## Ablation: the layers that AttnFD distils

{ablation}
## Figures

{figures}"""


def page(
    title: str,
    dataset: str,
    found: pd.DataFrame,
    comparison: pd.DataFrame,
    ablation: pd.DataFrame,
    drawn: Mapping[str, Picture],
) -> str:
    """`report.md`, from the tables of `attnfd.report.tables` and the figures of `attnfd.report.gallery`."""
    findings = [*_gains(comparison), *_collapses(found)]
    return PAGE.format(
        title=title,
        dataset=dataset,
        images=found["images"].iloc[0],
        findings="".join(f"- {finding}\n" for finding in findings),
        comparison=markdown(comparison),
        ablation=markdown(ablation),
        figures="\n".join(
            f"![{name}](figures/{name}.png)\n\n{picture.caption}\n" for name, picture in drawn.items()
        ),
    )


def _gains(comparison: pd.DataFrame) -> list[str]:
    """What AttnFD does for every student that was also trained without distillation."""
    by_name = comparison.set_index(["student", "method"])
    teacher = percent(by_name["miou"][TEACHER, ""])
    sentences = []
    for student in comparison["student"].unique():
        if (student, "none") not in by_name.index or (student, "attnfd") not in by_name.index:
            continue
        none, ours = by_name.loc[(student, "none")], by_name.loc[(student, "attnfd")]
        seeds = "one seed: the spread is unknown" if ours["seeds"] == 1 else f"{ours['seeds']:.0f} seeds"
        with_, without = (spread(row["miou"], row["miou_std"]) for row in (ours, none))
        sentences.append(
            f"AttnFD changes {student} by **{signed(ours['difference'])} mIoU**: {with_} against {without} "
            f"of the undistilled student ({seeds}); the teacher has {teacher}."
        )
    return sentences


def _collapses(found: pd.DataFrame) -> list[str]:
    return [
        f"**Collapsed**: {cell} predicts one class everywhere; its scores say nothing of its method."
        for cell in found.loc[found["collapsed"], "cell"]
    ]
