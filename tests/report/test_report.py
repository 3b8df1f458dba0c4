"""The report stage, on results that are known."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attnfd import paths
from attnfd.errors import UserError
from attnfd.report import style
from stages.report import report

from . import synthetic

FOLDER = Path("reports/tiny")


def contents():
    files = sorted(path for path in FOLDER.rglob("*") if path.is_file())
    return {str(file.relative_to(FOLDER)): file.read_bytes() for file in files}


def test_the_folder():
    settings = synthetic.params(students=["mobilenetv2", "resnet18"])
    more = {
        name.replace("resnet18", "mobilenetv2"): 0.5
        for name in ("resnet18-none-0", "resnet18-kd-0", "resnet18-attnfd-0")
    }
    synthetic.dataset()
    synthetic.results(settings, synthetic.ONE_SEED | more)
    report(settings, "tiny")
    figures = ["comparison", "sizes", "ablation", "curves", "per_class", "gains", "confusion"]
    for student in ("mobilenetv2", "resnet18"):
        figures += [f"overlays_{student}", f"attention_{student}"]
    names = ["report.md", "tables/comparison.csv", "tables/ablation.csv", "tables/curves.csv"]
    assert set(contents()) == {*names, *(f"figures/{name}.png" for name in figures)}
    text = (FOLDER / "report.md").read_text()
    assert "AttnFD changes resnet18 by **+10.00 mIoU**: 70.00 against 60.00" in text
    assert "AttnFD changes mobilenetv2 by **+0.00 mIoU**" in text
    assert "one seed" in text
    assert "Collapsed" not in text
    pictures = re.findall(r"\]\((.*?)\)", text)
    assert pictures == [f"figures/{name}.png" for name in figures]
    for picture in pictures:
        assert Image.open(FOLDER / picture).format == "PNG"
    assert json.loads(paths.summary("tiny").read_text())["mobilenetv2"]["kd"]["miou"] == 0.5
    assert pd.read_csv(FOLDER / "tables/comparison.csv").loc[0, "student"] == "teacher"


def test_three_seeds():
    settings = synthetic.params(seeds=[0, 1, 2])
    synthetic.dataset()
    synthetic.results(settings, synthetic.THREE_SEEDS)
    report(settings, "tiny")
    text = (FOLDER / "report.md").read_text()
    assert (
        "by **+10.00 mIoU**: 72.00 ± 2.65 against 62.00 ± 2.00 of the undistilled student (3 seeds)" in text
    )
    assert "| resnet18 | attnfd | 72.00 ± 2.65 | +10.00 | 82.00 | 90.00 | 16.6 M | n = 3 |" in text
    table = pd.read_csv(FOLDER / "tables/comparison.csv").set_index("method")
    assert table.loc["attnfd", "miou_std"] == pytest.approx(np.std([0.70, 0.71, 0.75], ddof=1), abs=1e-12)


def test_a_collapsed_student_is_named():
    settings = synthetic.params()
    synthetic.dataset()
    synthetic.results(settings, synthetic.ONE_SEED, collapsed=["resnet18-kd-0"])
    report(settings, "tiny")
    assert "**Collapsed**: resnet18-kd-0 predicts one class" in (FOLDER / "report.md").read_text()


def test_equal_results_give_equal_bytes(monkeypatch):
    settings = synthetic.params()
    synthetic.dataset()
    synthetic.results(settings, synthetic.ONE_SEED)
    report(settings, "tiny")
    first = contents()
    monkeypatch.setenv("MPLBACKEND", "svg")
    with style.matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        report(settings, "tiny")
    assert contents() == first
    assert str(Path.cwd()).encode() not in b"".join(first.values())


def test_only_none_is_enough():
    settings = synthetic.params(methods=["none"])
    kept = {
        name: miou
        for name, miou in synthetic.ONE_SEED.items()
        if name not in ("resnet18-kd-0", "resnet18-attnfd-0")
    }
    synthetic.dataset()
    synthetic.results(settings, kept)
    report(settings, "tiny")
    assert "AttnFD changes" not in (FOLDER / "report.md").read_text()
    assert list(pd.read_csv(FOLDER / "tables/ablation.csv")["variant"]) == ["none", "b", "ed"]
    assert {name for name in contents() if "gains" in name or "attention" in name} == set()


def test_a_missing_cell_writes_nothing():
    settings = synthetic.params()
    synthetic.dataset()
    cells = synthetic.results(settings, synthetic.ONE_SEED)
    (cells[0].results / "predictions.npz").unlink()
    with pytest.raises(UserError, match=r"results/tiny/teacher/predictions.npz: not found: teacher"):
        report(settings, "tiny")
    assert not FOLDER.exists()
