"""Charts, read back from what was drawn; the numbers are worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from attnfd.config.schema import LAYERS
from attnfd.report import figures
from attnfd.results import style


def rows(columns, *values):
    return pd.DataFrame(values, columns=columns.split())


COMPARISON = rows(
    "student method miou miou_std difference parameters multiply_adds",
    ("teacher", "", 0.80, np.nan, np.nan, 60_000_000, 90e9),
    ("resnet18", "none", 0.60, 0.01, np.nan, 16_000_000, 50e9),
    ("resnet18", "kd", 0.58, 0.02, -0.02, 16_000_000, 50e9),
    ("resnet18", "attnfd", 0.70, 0.03, 0.10, 16_000_000, 50e9),
    ("mobilenetv2", "kd", 0.50, np.nan, np.nan, 6_000_000, 25e9),
)


def dots(axes):
    """Score and its two ends of a chart's dots, by label."""
    found = {}
    for container in axes.containers:
        point, _, bars = container.lines
        (score,), (label,) = point.get_data()
        ends = bars[0].get_segments()[0][:, 0].tolist() if bars else []
        found[label] = [float(score), *ends]
    return found


def beside(axes):
    return [text.get_text().split() for text in axes.texts]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_comparison_has_a_dot_per_method_with_its_deviation():
    figure = figures.comparison(COMPARISON)
    resnet, mobile = figure.axes
    assert resnet.get_title(loc="left") == "resnet18"
    assert list(dots(resnet)) == ["none", "kd", "attnfd"]
    for method, expected in {"none": [60, 59, 61], "kd": [58, 56, 60], "attnfd": [70, 67, 73]}.items():
        assert dots(resnet)[method] == pytest.approx(expected)
    assert dots(mobile) == {"kd": [50]}
    assert beside(resnet) == [
        ["60.00", "±", "1.00"], ["58.00", "±", "2.00", "−2.00"], ["70.00", "±", "3.00", "+10.00"]
    ]  # fmt: skip
    assert beside(mobile) == [["50.00"]]
    lines = {line.get_label(): line.get_xdata()[0] for line in resnet.lines}
    assert lines["none"] == pytest.approx(60)
    assert lines["teacher: 80.00"] == pytest.approx(80)
    assert legend(figure) == ["none", "teacher: 80.00"]
    top, bottom = resnet.get_ylim()[::-1]
    assert top < 0 < 2 < bottom  # the first method is on top


def test_stems_start_at_the_undistilled_student():
    resnet, mobile = figures.comparison(COMPARISON).axes
    stems = [line.get_xdata().tolist() for line in resnet.lines if line.get_alpha() == 0.6]
    assert stems == [pytest.approx([60, 60]), pytest.approx([60, 58]), pytest.approx([60, 70])]
    assert not [line for line in mobile.lines if line.get_alpha() == 0.6]


def test_ablation_marks_the_layers():
    table = rows(
        f"student variant {' '.join(LAYERS)} miou miou_std difference",
        ("resnet18", "none", False, False, False, 0.6, np.nan, np.nan),
        ("resnet18", "ed", False, True, True, 0.68, np.nan, 0.08),
        ("resnet18", "attnfd", True, True, True, 0.7, np.nan, 0.1),
    )
    (axes,) = figures.ablation(table).axes
    found = dots(axes)
    assert list(found) == ["none  ○ ○ ○", "ed  ○ ● ●", "attnfd  ● ● ●"]
    assert [score for (score,) in found.values()] == pytest.approx([60, 68, 70])


def test_settings_start_at_attnfd():
    table = rows(
        "student variant changed miou miou_std difference",
        ("resnet18", "attnfd", "", 0.7, np.nan, np.nan),
        ("resnet18", "with_kd", "kd_weight = 1", 0.75, np.nan, 0.05),
    )
    (axes,) = figures.settings(table).axes
    assert {name: score for name, (score,) in dots(axes).items()} == pytest.approx(
        {"attnfd": 70, "with_kd": 75}
    )
    stems = [line.get_xdata().tolist() for line in axes.lines if line.get_alpha() == 0.6]
    assert stems == [pytest.approx([70, 70]), pytest.approx([70, 75])]


@pytest.mark.parametrize(
    ("panel", "teacher", "student", "ticks"),
    [
        (0, 60e6, 16e6, ["60.0 M\nteacher", "16.0 M\nresnet18", "6.0 M\nmobilenetv2"]),
        (1, 90e9, 50e9, ["90.0 G\nteacher", "50.0 G\nresnet18", "25.0 G\nmobilenetv2"]),
    ],
)
def test_sizes_puts_methods_of_a_student_around_its_cost(panel, teacher, student, ticks):
    figure = figures.sizes(COMPARISON)
    axes = figure.axes[panel]
    points = {container.get_label(): container.lines[0].get_xydata()[0] for container in axes.containers[:3]}
    assert list(points) == ["none", "kd", "attnfd"]
    assert [miou for _, miou in points.values()] == pytest.approx([60, 58, 70])
    assert np.prod([cost for cost, _ in points.values()]) ** (1 / 3) == pytest.approx(student)
    assert axes.lines[0].get_xydata().tolist() == [[teacher, 80]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ticks
    assert legend(figure) == ["teacher", "none", "kd", "attnfd"]


def test_twelve_methods_are_told_apart():
    methods = [
        "none", "kd", "at", "sp", "ickd", "overhaul", "dist", "cirkd", "lad", "attnfd", "fitnet", "cwd",
    ]  # fmt: skip
    table = pd.DataFrame({"student": "resnet18", "method": methods, "miou": np.linspace(0.5, 0.6, 12)})
    table = table.assign(miou_std=0.01, difference=0.0, parameters=16_000_000, multiply_adds=50e9)
    figure = figures.sizes(pd.concat([COMPARISON[:1], table]))
    looks = {
        (container.lines[0].get_color(), container.lines[0].get_marker())
        for container in figure.axes[0].containers
    }
    assert len(looks) == len({colour for colour, _ in looks}) == 12


def history(*values):
    return rows("student method variant seed epoch ce miou", *values)


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
    figure = figures.curves(table, {"resnet18": "kd"})
    _, _, ce, miou = figure.axes
    assert ce.get_title(loc="left") == "resnet18: cross-entropy"
    drawn = {line.get_label(): line.get_xydata().tolist() for line in miou.lines}
    assert drawn["none"] == [pytest.approx([2, 30])]
    assert drawn["attnfd"] == [pytest.approx([2, 60])]  # the ablation is left out
    assert drawn["other methods"] == [pytest.approx([2, 10])]
    bands = [band.get_paths()[0].vertices[:, 1] for band in miou.collections]
    assert [(low.min(), low.max()) for low in bands] == [
        pytest.approx((20, 40)), pytest.approx((30, 30)), pytest.approx((60, 60))
    ]  # fmt: skip
    assert [line.get_label() for line in ce.lines] == [
        "other methods",
        "none",
        "kd",
        "attnfd",
    ]  # the last on top
    assert ce.lines[0].get_color() == style.PALE
    assert set(legend(figure)) == {"teacher", "other methods", "none", "kd", "attnfd"}


PER_CLASS = rows(
    "student method variant seed class iou",
    ("teacher", "", "", "", "road", 0.9),
    ("teacher", "", "", "", "car", 0.8),
    ("teacher", "", "", "", "bus", np.nan),
    *(("resnet18", "kd", "", seed, "road", iou) for seed, iou in (("0", 0.7), ("1", 0.5))),
    *(("resnet18", "kd", "", seed, "car", iou) for seed, iou in (("0", 0.4), ("1", 0.4))),
    *(("resnet18", "kd", "", seed, "bus", np.nan) for seed in "01"),
    *(("resnet18", "attnfd", "", seed, "road", iou) for seed, iou in (("0", 0.5), ("1", 0.5))),
    *(("resnet18", "attnfd", "", seed, "car", iou) for seed, iou in (("0", 0.5), ("1", 0.7))),
    *(("resnet18", "attnfd", "", seed, "bus", 0.1) for seed in "01"),
    ("resnet18", "attnfd", "b", "0", "car", 0.0),
)


def test_per_class_is_a_matrix_of_methods_and_classes():
    (axes,) = figures.per_class(PER_CLASS).axes
    values = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(values, [[60, 40, np.nan], [50, 60, 10], [90, 80, np.nan]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["kd", "attnfd", "teacher"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["road", "car", "bus"]
    found = {text.get_position(): text.get_text() for text in axes.texts}
    assert found == {(0, 0): "60", (1, 0): "40", (0, 1): "50", (1, 1): "60", (2, 1): "10",
                     (0, 2): "90", (1, 2): "80"}  # fmt: skip


def test_gains_are_differences_of_equal_seeds_sorted():
    (axes,) = figures.gains(PER_CLASS, {"resnet18": "kd"}).axes
    assert axes.get_title(loc="left") == "resnet18: attnfd − kd"
    # car: 10 and 30 points; road: -20 and 0; bus has nothing to be compared with.
    assert [label.get_text() for label in axes.get_yticklabels()] == ["car", "road"]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([20, -10])
    assert beside(axes) == [["+20.0", "=", "60.0", "−", "40.0"], ["-10.0", "=", "50.0", "−", "60.0"]]
    (deviation,) = (lines for lines in axes.collections if len(lines.get_segments()) == 2)
    half = np.sqrt(2 * 10**2)  # sample standard deviation of 10 and 30, and of -20 and 0
    ends = [segment[:, 0].tolist() for segment in deviation.get_segments()]
    assert ends == [pytest.approx([20 - half, 20 + half]), pytest.approx([-10 - half, -10 + half])]


def many_classes():
    names = [f"class, {number}" for number in range(254)]
    of_cells = ("teacher", ""), ("resnet18", "kd"), ("resnet18", "attnfd")
    table = [
        (student, method, "", "0", name, (number + (method == "attnfd") * (number - 127)) / 512)
        for student, method in of_cells
        for number, name in enumerate(names)
    ]
    return rows("student method variant seed class iou", *table)


def test_many_classes_are_rows():
    figure = figures.per_class(many_classes())
    (axes,) = figure.axes
    values = axes.images[0].get_array()
    assert values.shape == (254, 3)
    assert values[200].tolist() == pytest.approx([100 * 200 / 512, 100 * 273 / 512, 100 * 200 / 512])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["kd", "attnfd", "teacher"]
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["class, 0", "class, 1"]
    assert len(axes.texts) == np.count_nonzero(values >= 0.5)
    assert max(figure.get_size_inches()) < 40


def test_gains_of_many_classes_are_the_most_and_the_least():
    (axes,) = figures.gains(many_classes(), {"resnet18": "kd"}).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    most, least = range(253, 241, -1), range(11, -1, -1)
    assert names == [f"class, {number}" for number in (*most, *least)]
    assert [bar.get_width() for bar in axes.patches][::23] == pytest.approx(
        [100 * 126 / 512, -100 * 127 / 512]
    )
