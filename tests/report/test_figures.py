"""Charts: the drawn values are read back and compared with values calculated by hand."""

import numpy as np
import pandas as pd
import pytest

from attnfd.config.schema import LAYERS
from attnfd.report import figures
from attnfd.report.names import Names
from attnfd.results import style


def rows(columns, *values):
    return pd.DataFrame(values, columns=columns.split())


COMPARISON = rows(
    "student method miou difference low high multiply_adds",
    ("teacher", "", 0.80, np.nan, np.nan, np.nan, 90e9),
    ("resnet18", "none", 0.60, np.nan, np.nan, np.nan, 50e9),
    ("resnet18", "kd", 0.58, -0.02, -0.05, 0.01, 50e9),
    ("resnet18", "attnfd", 0.70, 0.10, 0.07, 0.12, 50e9),
    ("mobilenetv2", "kd", 0.50, np.nan, np.nan, np.nan, 25e9),
)
NAMES = Names({"resnet18": "ResNet-18", "mobilenetv2": "MobileNetV2"},
              {"none": "no distillation", "kd": "KD", "attnfd": "AttnFD"}, "ResNet-101")  # fmt: skip


def dots(axes):
    """Scores of a chart's dots by their label."""
    labels = [label.get_text() for label in axes.get_yticklabels()]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    return {labels[int(line.get_ydata()[0])]: float(line.get_xdata()[0]) for line in points}


def bands(axes):
    """Ends of a chart's intervals, from top to bottom."""
    return [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]


def beside(axes):
    """The numbers in the three columns beside a chart."""
    texts = [text.get_text() for text in axes.texts]
    return [texts[start : start + 3] for start in range(0, len(texts), 3)]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_comparison_has_a_dot_per_method_the_best_on_top_and_the_interval_of_its_difference():
    figure = figures.comparison(COMPARISON, NAMES)
    resnet, mobile = figure.axes
    assert resnet.get_title(loc="left") == "ResNet-18"
    assert list(dots(resnet).items()) == [
        ("AttnFD", pytest.approx(70)), ("no distillation", pytest.approx(60)), ("KD", pytest.approx(58))
    ]  # fmt: skip
    assert bands(resnet) == [pytest.approx((67, 72)), pytest.approx((55, 61))]
    assert dots(mobile) == {"KD": 50}
    assert not bands(mobile)
    assert not resnet.texts  # the table contains the numbers
    lines = {line.get_label(): line.get_xdata()[0] for line in resnet.lines}
    assert lines["no distillation"] == pytest.approx(60)
    assert lines["teacher"] == pytest.approx(80)
    assert legend(figure) == ["no distillation", "teacher", "95 % interval of the difference"]
    top, bottom = resnet.get_ylim()[::-1]
    assert top < 0 < 2 < bottom


def test_stems_start_at_the_undistilled_student():
    resnet, mobile = figures.comparison(COMPARISON, NAMES).axes
    stems = [line.get_xdata().tolist() for line in resnet.lines if line.get_alpha() == 0.6]
    assert stems == [pytest.approx([60, 70]), pytest.approx([60, 60]), pytest.approx([60, 58])]
    assert not [line for line in mobile.lines if line.get_alpha() == 0.6]


def test_ablation_names_the_layers():
    table = rows(
        f"student variant {' '.join(LAYERS)} miou low high",
        ("resnet18", "none", False, False, False, 0.6, np.nan, np.nan),
        ("resnet18", "ed", False, True, True, 0.68, 0.07, 0.09),
        ("resnet18", "attnfd", True, True, True, 0.7, 0.09, 0.11),
    )
    (axes,) = figures.ablation(table, NAMES).axes
    assert dots(axes) == {
        "no distillation": pytest.approx(60),
        "encoder + decoder": pytest.approx(68),
        "backbone + encoder + decoder": pytest.approx(70),
    }


def test_settings_start_at_attnfd():
    table = rows(
        "student variant changed miou low high",
        ("resnet18", "attnfd", "", 0.7, np.nan, np.nan),
        ("resnet18", "with_kd", "kd_weight = 1", 0.75, 0.03, 0.07),
    )
    (axes,) = figures.settings(table, NAMES).axes
    assert dots(axes) == pytest.approx({"with kd": 75, "AttnFD": 70})
    assert bands(axes) == [pytest.approx((73, 77))]
    stems = [line.get_xdata().tolist() for line in axes.lines if line.get_alpha() == 0.6]
    assert stems == [pytest.approx([70, 75]), pytest.approx([70, 70])]


def test_sizes_names_every_network_at_its_cost_and_points_from_none_to_attnfd():
    figure = figures.sizes(COMPARISON, NAMES)
    (axes,) = figure.axes
    points = sorted(tuple(map(float, line.get_xydata()[0])) for line in axes.lines)
    assert points == [pytest.approx(point) for point in ((25, 50), (50, 58), (50, 60), (50, 70), (90, 80))]
    (arrow,) = (text for text in axes.texts if not text.get_text())
    assert (arrow.xyann, arrow.xy) == (pytest.approx((50, 60)), pytest.approx((50, 70)))
    named = {text.get_text(): text.xy for text in axes.texts if text.get_text()}
    assert named == {
        "ResNet-101 (teacher)": pytest.approx((90, 80)),
        "ResNet-18": pytest.approx((50, 70)),
        "MobileNetV2": pytest.approx((25, 50)),
    }
    assert legend(figure) == ["other methods", "no distillation", "AttnFD"]


def history(*values):
    table = rows("student method variant seed epoch ce miou", *values)
    return table.assign(loss=table["ce"] + 0.5 * (table["method"] == "attnfd"))


def test_curves_are_means_over_the_seeds_with_their_range():
    table = history(
        ("teacher", "", "", "", 1, 2.0, 0.5),
        *(("resnet18", "none", "", seed, 1, 1.0, np.nan) for seed in "01"),
        *(("resnet18", "none", "", seed, 2, 0.5, miou) for seed, miou in (("0", 0.2), ("1", 0.4))),
        ("resnet18", "kd", "", "0", 2, 0.5, 0.3),
        ("resnet18", "attnfd", "", "0", 2, 0.5, 0.6),
        ("resnet18", "attnfd", "b", "0", 2, 0.5, 0.9),
        ("resnet18", "at", "", "0", 2, 0.5, 0.1),
    )
    figure = figures.curves(table, {"resnet18": "kd"}, NAMES)
    _, _, ce, miou = figure.axes
    assert ce.get_title(loc="left") == "ResNet-18: loss"
    drawn = {line.get_label(): line.get_xydata().tolist() for line in miou.lines}
    assert drawn["no distillation"] == [pytest.approx([2, 30])]
    assert drawn["AttnFD"] == [pytest.approx([2, 60])]  # the ablation is not drawn
    assert drawn["other methods"] == [pytest.approx([2, 10])]
    bands = [band.get_paths()[0].vertices[:, 1] for band in miou.collections]
    assert [(low.min(), low.max()) for low in bands] == [pytest.approx((20, 40))]  # one seed has no range
    labels = [line.get_label() for line in ce.lines]
    assert labels[:4] == ["other methods", "no distillation", "KD", "AttnFD"]  # the last one is on top
    (term,) = (line for line in ce.lines if line.get_linestyle() == ":")
    assert term.get_xydata().tolist() == [
        pytest.approx([2, 0.5])
    ]  # the term that AttnFD adds to cross-entropy
    assert ce.lines[0].get_color() == style.PALE
    assert set(legend(figure)) == {"teacher", "other methods", "no distillation", "KD", "AttnFD"}


PER_CLASS = rows(
    "student method variant seed class iou",
    ("teacher", "", "", "", "road", 0.9),
    ("teacher", "", "", "", "car", 0.8),
    ("teacher", "", "", "", "bus", np.nan),
    *(("resnet18", "none", "", seed, "road", iou) for seed, iou in (("0", 0.7), ("1", 0.5))),
    *(("resnet18", "none", "", seed, "car", iou) for seed, iou in (("0", 0.4), ("1", 0.4))),
    *(("resnet18", "none", "", seed, "bus", np.nan) for seed in "01"),
    *(("resnet18", "attnfd", "", seed, "road", iou) for seed, iou in (("0", 0.5), ("1", 0.5))),
    *(("resnet18", "attnfd", "", seed, "car", iou) for seed, iou in (("0", 0.5), ("1", 0.7))),
    *(("resnet18", "attnfd", "", seed, "bus", 0.1) for seed in "01"),
    ("resnet18", "attnfd", "b", "0", "car", 0.0),
)


def test_per_class_has_a_row_per_class_those_that_gain_most_on_top():
    (axes,) = figures.per_class(PER_CLASS, NAMES).axes
    values = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(values, [[40, 60, 80], [60, 50, 90], [np.nan, 10, np.nan]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["no distillation", "AttnFD", "teacher"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["car", "road", "bus"]
    found = {text.get_position(): text.get_text() for text in axes.texts}
    assert found == {(0, 0): "40", (1, 0): "60", (2, 0): "80", (0, 1): "60", (1, 1): "50", (2, 1): "90",
                     (1, 2): "10"}  # fmt: skip


@pytest.mark.parametrize("methods", [2, 11])
def test_twenty_one_classes_of_two_students_stay_readable(methods):
    names = [f"class_{number}" for number in range(21)]
    taught = ["none", "attnfd", *(f"method{number}" for number in range(methods - 2))]
    cells = [("teacher", ""), *((student, method) for student in ("a", "b") for method in taught)]
    values = [(student, method, "", "0", name, 0.5) for student, method in cells for name in names]
    figure = figures.per_class(rows("student method variant seed class iou", *values), NAMES)
    width, height = figure.get_size_inches()
    assert width <= 7.5
    a_row = height / len(names) / (1 if methods == 2 else 2)
    assert a_row > 7.5 / 72  # higher than its text
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:2] == ["class 0", "class 1"]


def test_gains_are_differences_of_equal_seeds_sorted():
    (axes,) = figures.gains(PER_CLASS, NAMES).axes
    assert axes.get_title(loc="left") == "ResNet-18"
    # car: 10 and 30 points; road: -20 and 0; bus has no other score to compare with.
    assert [label.get_text() for label in axes.get_yticklabels()] == ["car", "road"]
    gained, lost = axes.patches[:2], axes.patches[2:]
    assert [bar.get_width() for bar in gained] == pytest.approx([20, 0])
    assert [bar.get_width() for bar in lost] == pytest.approx([0, -10])
    assert all(bar.get_hatch() for bar in lost)
    assert not any(bar.get_hatch() for bar in gained)
    assert beside(axes) == [["40.0", "60.0", "+20.0"], ["60.0", "50.0", "−10.0"], ["none", "AttnFD", "Δ"]]
    (deviation,) = (lines for lines in axes.collections if len(lines.get_segments()) == 2)
    half = np.sqrt(2 * 10**2)  # sample standard deviation of 10 and 30, and of -20 and 0
    ends = [segment[:, 0].tolist() for segment in deviation.get_segments()]
    assert ends == [pytest.approx([20 - half, 20 + half]), pytest.approx([-10 - half, -10 + half])]


def many_classes():
    names = [f"class, {number}" for number in range(254)]
    of_cells = ("teacher", ""), ("resnet18", "none"), ("resnet18", "attnfd")
    table = [
        (student, method, "", "0", name, (number + (method == "attnfd") * (number - 127)) / 512)
        for student, method in of_cells
        for number, name in enumerate(names)
    ]
    return rows("student method variant seed class iou", *table)


def test_very_many_classes_can_be_drawn():
    figure = figures.per_class(many_classes(), NAMES)
    (axes,) = figure.axes
    values = axes.images[0].get_array()
    assert values.shape == (254, 3)
    assert values[0].tolist() == pytest.approx([100 * 253 / 512, 100 * 379 / 512, 100 * 253 / 512])
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["class, 253", "class, 252"]
    assert len(axes.texts) == np.count_nonzero(values >= 0.5)
    assert max(figure.get_size_inches()) < 50


def test_gains_of_many_classes_are_the_most_and_the_least():
    (axes,) = figures.gains(many_classes(), NAMES).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    most, least = range(253, 241, -1), range(11, -1, -1)
    assert names == [f"class, {number}" for number in (*most, *least)]
    assert axes.patches[0].get_width() == pytest.approx(100 * 126 / 512)
    assert axes.patches[-1].get_width() == pytest.approx(-100 * 127 / 512)


def test_tuning_has_a_curve_for_each_method_and_rings_the_chosen_factor():
    table = rows(
        "method factor weight trials miou chosen",
        ("kd", "3", 30, 2, 0.4, False),
        ("kd", "0.3", 3, 2, 0.5, True),
        ("attnfd", "1", 1, 2, 0.6, True),
    )
    figure = figures.tuning(table, NAMES)
    (axes,) = figure.axes
    drawn = [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines]
    assert drawn == [([0.3, 3], [50, 40]), ([0.3], [50]), ([1], [60]), ([1], [60])]
    assert axes.get_xscale() == "log"
    assert legend(figure) == ["KD", "AttnFD"]
