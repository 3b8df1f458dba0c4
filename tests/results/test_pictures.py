"""Pictures: colours and shares calculated by hand, and the content of the figures."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attnfd.results import examples, pictures, style
from tests.report import synthetic


def cells(axes):
    """The text in the cells of a matrix, by row and column."""
    return {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}


def titles(axes):
    return [axis.get_title(loc="left") for axis in axes]


def test_classes_take_the_colours_of_the_palette_and_void_is_white():
    painted = pictures.paint(np.array([[0, 2], [255, 1]], dtype=np.uint8), synthetic.PALETTE)
    assert painted.tolist() == [[[0, 0, 0], [230, 159, 0]], [[255, 255, 255], [0, 114, 178]]]


def test_errors_leave_void_out():
    pred, target = np.array([[0, 1, 1]], dtype=np.uint8), np.array([[0, 2, 255]], dtype=np.uint8)
    right, wrong, void = pictures.errors(pred, target)[0].tolist()
    assert (tuple(right), tuple(wrong), tuple(void)) == (pictures.RIGHT, pictures.WRONG, (255, 255, 255))


def test_confusion_shows_shares_of_the_ground_truth():
    matrix = np.array([[30, 10, 0], [1, 299, 0], [0, 0, 0]])
    figure = pictures.confusion({"student": matrix, "teacher": np.eye(3, dtype=int)}, synthetic.CLASSES)
    left, right = figure.axes[:2]
    assert [axes.get_title(loc="left") for axes in (left, right)] == ["student", "teacher"]
    np.testing.assert_allclose(
        left.images[0].get_array(), [[75, 25, 0], [100 / 300, 29900 / 300, 0], [0, 0, 0]]
    )
    assert cells(left) == {(0, 0): "75", (0, 1): "25", (1, 1): "100"}
    assert cells(right) == {(0, 0): "100", (1, 1): "100", (2, 2): "100"}
    assert [label.get_text() for label in left.get_yticklabels()] == list(synthetic.CLASSES)


def test_overlays_have_a_row_per_image_and_a_column_per_prediction():
    prepared = synthetic.dataset()
    shown = examples.read(prepared, ["image1", "image3"])
    pred = np.ones_like(shown.targets)
    single = pictures.overlays(shown, {"prediction": pred}, synthetic.CLASSES, synthetic.PALETTE)
    assert titles(single.axes[:4]) == ["image", "ground truth", "prediction", "errors"]
    assert len(single.axes) == 2 * 4
    np.testing.assert_array_equal(single.axes[0].images[0].get_array(), np.full((*synthetic.SIZE, 3), 10))


def test_legend_names_the_classes_that_occur():
    shown = examples.read(synthetic.dataset(), ["image0"])
    figure = pictures.overlays(shown, {"p": shown.targets * 0}, synthetic.CLASSES, synthetic.PALETTE)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ground", "square"]


def test_attention_has_a_row_per_image_and_layer_and_a_column_per_network_and_kind():
    images = np.stack([np.full((6, 8, 3), level, dtype=np.uint8) for level in (1, 2)])
    names = ["teacher/encoder/raw", "teacher/encoder/refined", "teacher/decoder/raw", "student/encoder/raw"]
    maps = {
        name: np.random.default_rng(number).integers(0, 256, (2, 3, 4), dtype=np.uint8)
        for number, name in enumerate(names)
    }
    figure = pictures.attention(images, maps)
    assert titles(figure.axes[:4]) == ["image", "teacher\nraw", "teacher\nrefined", "student\nraw"]
    rows = [figure.axes[start : start + 4] for start in range(0, 16, 4)]
    assert [row[0].get_ylabel() for row in rows] == ["encoder", "decoder"] * 2
    assert [row[0].images[0].get_array()[0, 0, 0] for row in rows] == [1, 1, 2, 2]
    assert [[axes.get_visible() for axes in row] for row in rows] == [
        [True] * 4,
        [True, True, False, False],
    ] * 2
    np.testing.assert_array_equal(rows[2][3].images[0].get_array(), maps["student/encoder/raw"][1])
    np.testing.assert_array_equal(rows[1][1].images[0].get_array(), maps["teacher/decoder/raw"][0])


def test_brightness_spans_each_map_between_its_percentiles():
    energies = np.stack([np.arange(101.0).reshape(1, 101), 1000 + 10 * np.arange(101.0).reshape(1, 101)])
    low, high = pictures.brightness(energies)[:, 0].astype(int)
    assert low[[0, 2, 50, 98, 100]].tolist() == [0, 0, 128, 255, 255]  # 50 is the middle between 2 and 98
    np.testing.assert_array_equal(low, high)


def test_curves_show_the_terms_of_the_loss_and_the_validations():
    history = pd.DataFrame(
        {"epoch": [1, 2, 3], "loss": [5.0, 4.0, 3.0], "ce": [3.0, 2.0, 1.0], "attnfd": [2.0, 2.0, 2.0],
         "lr": [0.1, 0.1, 0.1], "miou": [np.nan, 0.25, 0.5]}
    )  # fmt: skip
    loss, miou = pictures.curves(history).axes
    assert {line.get_label(): line.get_ydata().tolist() for line in loss.lines} == {
        "ce": [3, 2, 1],
        "attnfd": [2, 2, 2],
    }
    assert loss.get_yscale() == "log"
    assert miou.lines[0].get_xydata().tolist() == [[2, 25], [3, 50]]


def test_curves_of_a_teacher_that_was_imported_are_its_one_score(tmp_path):
    history = pd.DataFrame({"epoch": [0], "loss": [np.nan], "ce": [np.nan], "lr": [np.nan], "miou": [0.5]})
    figure = pictures.curves(history)
    style.save(figure, tmp_path / "curves.png")  # an empty log scale can be drawn
    assert figure.axes[1].lines[0].get_xydata().tolist() == [[0, 50]]


def test_examples_are_of_the_commonest_size():
    prepared = synthetic.dataset(sizes=[(5, 5), (6, 8), (5, 5), (6, 8), (6, 8)])
    assert examples.choose(prepared, 2) == ["image1", "image4"]
    assert examples.choose(prepared, 9) == ["image1", "image3", "image4"]


@pytest.mark.parametrize(("count", "total"), [(1, 1), (1, 100), (4, 100), (7, 8), (9, 3)])
def test_evenly_spreads_over_the_whole(count, total):
    found = examples.evenly(count, total)
    assert len(found) == len(set(found)) == min(count, total)
    gaps = np.diff([-1, *found, total])
    assert found == sorted(found)
    assert gaps.max() <= total / len(found) + 1


def test_png_bytes_do_not_depend_on_the_machine(tmp_path):
    for name, size in (("a.png", 10), ("b.png", 40)):
        with style.matplotlib.rc_context({"font.size": size, "savefig.facecolor": "red"}):
            matrix = np.eye(3, dtype=int)
            style.save(pictures.confusion({"": matrix}, synthetic.CLASSES), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"Software" not in (tmp_path / "a.png").read_bytes()


def test_a_saved_picture_keeps_the_colours_of_the_classes(tmp_path):
    shown = examples.read(synthetic.dataset(), ["image1"])
    noise = np.random.default_rng(0).integers(0, 256, shown.images.shape, dtype=np.uint8)
    shown = shown._replace(images=noise)  # the photograph uses most of the 256 colours
    pred = np.full_like(shown.targets, 2)
    figure = pictures.overlays(shown, {"p": pred}, synthetic.CLASSES, synthetic.PALETTE)
    style.save(figure, tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).reshape(-1, 3).astype(int)
    for colour in (synthetic.PALETTE[2], pictures.WRONG, (255, 255, 255)):
        near = np.abs(pixels - colour).max(1) <= 3
        assert near.mean() > 0.02, colour


def test_a_method_keeps_its_colour_and_marker():
    both = style.colours(["none", "kd", "attnfd"]), style.colours(["kd", "none", "attnfd", "at"])
    assert both[0].items() <= both[1].items()
    many = ["none", "attnfd", *(f"method{number}" for number in range(10))]
    assert len(set(style.colours(many).values())) == len(many)
    assert len(set(zip(style.colours(many).values(), style.markers(many).values(), strict=True))) == len(many)


MANY = [f"class, {number} of a name that is long" for number in range(254)]


def test_confusion_of_many_classes_is_small_and_without_numbers(tmp_path):
    matrix = np.eye(254, dtype=int)
    matrix[3, 5] = 3
    figure = pictures.confusion({"student": matrix, "teacher": matrix}, MANY)
    left, _ = figure.axes[:2]
    assert left.images[0].get_array().shape == (254, 254)
    assert left.images[0].get_array()[3, [3, 5]].tolist() == [25, 75]
    assert not left.texts
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert len(labels) == 254
    assert labels[12] == "class, 12 of a name tha…"
    style.save(figure, tmp_path / "confusion.png")
    width, height = Image.open(tmp_path / "confusion.png").size
    assert width * height < 25e6


def test_a_legend_names_the_largest_of_many_classes():
    targets = np.repeat(np.arange(100, dtype=np.uint8), 4).reshape(1, 20, 20)
    targets[0, 0, :4] = 99  # now of 8 pixels, and no pixel of class 0
    shown = examples.Examples(["a"], np.zeros((1, 20, 20, 3), dtype=np.uint8), targets)
    figure = pictures.overlays(shown, {"p": targets}, MANY, [(0, 0, 0)] * 254)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(names) == pictures.NAMED + 1
    assert names[0].startswith("class, 1 ")
    assert names[-2].startswith("class, 99 ")
    assert names[-1] == "and 59 smaller ones"


def test_names_of_classes_are_drawn_as_they_are(tmp_path):
    names = ("$\\frac", "_background_", "50 % R&D #1 $a$")
    plain = ["$\\frac", "background", "50 % R&D #1 $a$"]  # only underscores become spaces
    figure = pictures.confusion({"": np.eye(3, dtype=int)}, names)
    style.save(
        figure, tmp_path / "confusion.png"
    )  # dollar signs do not start a formula, which could be invalid
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == plain
    shown = examples.read(synthetic.dataset(), ["image0"])
    overlays = pictures.overlays(shown, {"p": shown.targets * 0}, names, synthetic.PALETTE)
    style.save(overlays, tmp_path / "overlays.png")
    assert [text.get_text() for text in overlays.legends[0].get_texts()] == plain[:2]


def test_a_picture_of_any_size_can_be_saved(tmp_path):
    style.save(style.matplotlib.figure.Figure((2000, 1)), tmp_path / "wide.png")
    assert Image.open(tmp_path / "wide.png").width <= style.LARGEST + 50
