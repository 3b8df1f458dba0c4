"""Pictures: colours and shares by hand, and what the figures show."""

import numpy as np
import pytest

from attnfd.report import examples, pictures, style

from . import synthetic


def texts(figure):
    return {text.get_text() for axes in figure.axes for text in axes.texts}


def test_classes_take_the_colours_of_the_palette_and_void_is_white():
    painted = pictures.paint(np.array([[0, 2], [255, 1]], dtype=np.uint8), synthetic.PALETTE)
    assert painted.tolist() == [[[0, 0, 0], [230, 159, 0]], [[255, 255, 255], [0, 114, 178]]]


def test_errors_leave_void_out():
    pred, target = np.array([[0, 1, 1]], dtype=np.uint8), np.array([[0, 2, 255]], dtype=np.uint8)
    right, wrong, void = pictures.errors(pred, target)[0].tolist()
    assert (tuple(right), tuple(wrong), tuple(void)) == (pictures.RIGHT, pictures.WRONG, (255, 255, 255))


def test_confusion_matrix_shows_shares_of_the_ground_truth():
    matrix = np.array([[30, 10, 0], [1, 299, 0], [0, 0, 0]])
    figure = pictures.confusion_matrix(matrix, synthetic.CLASSES)
    image = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(image, [[75, 25, 0], [100 / 300, 29900 / 300, 0], [0, 0, 0]])
    assert texts(figure) == {"75", "25", "100"}


def test_overlays_have_a_row_per_image_and_a_column_per_prediction():
    prepared = synthetic.dataset()
    shown = examples.read(prepared, ["image1", "image3"])
    pred = np.ones_like(shown.targets)
    single = pictures.overlays(shown, {"prediction": pred}, synthetic.CLASSES, synthetic.PALETTE)
    assert [axes.get_title(loc="left") for axes in single.axes[:4]] == [
        "image",
        "ground truth",
        "prediction",
        "errors",
    ]
    assert len(single.axes) == 2 * 4
    np.testing.assert_array_equal(single.axes[0].images[0].get_array(), np.full((*synthetic.SIZE, 3), 10))
    several = pictures.overlays(shown, {"a": pred, "b": pred}, synthetic.CLASSES, synthetic.PALETTE)
    assert [axes.get_title(loc="left") for axes in several.axes[:4]] == ["image", "ground truth", "a", "b"]


def test_legend_names_the_classes_that_occur():
    shown = examples.read(synthetic.dataset(), ["image0"])
    figure = pictures.overlays(shown, {"p": shown.targets * 0}, synthetic.CLASSES, synthetic.PALETTE)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ground", "square"]


def test_attention_has_a_row_per_image_and_network():
    images = np.zeros((2, 6, 8, 3), dtype=np.uint8)
    maps = {
        name: np.random.default_rng(0).random((2, 3, 4))
        for name in ("decoder/raw", "encoder/refined", "encoder/raw")
    }
    figure = pictures.attention(images, {"teacher": maps, "student": {"encoder/raw": maps["encoder/raw"]}})
    titles = [axes.get_title(loc="left") for axes in figure.axes[:4]]
    assert titles == ["image", "encoder, raw", "encoder, refined", "decoder, raw"]
    assert [axes.get_ylabel() for axes in figure.axes[::4]] == ["teacher", "student"] * 2
    student = figure.axes[4:8]
    assert [bool(axes.images) for axes in student] == [True, True, False, False]
    np.testing.assert_array_equal(student[1].images[0].get_array(), maps["encoder/raw"][0])


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
            style.save(pictures.confusion_matrix(np.eye(3, dtype=int), synthetic.CLASSES), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"Software" not in (tmp_path / "a.png").read_bytes()


def test_a_method_keeps_its_colour_and_marker():
    both = style.colours(["none", "kd", "attnfd"]), style.colours(["kd", "none", "attnfd", "at"])
    assert both[0].items() <= both[1].items()
    many = [f"method{number}" for number in range(10)]
    assert len(set(style.colours(many).values())) == len(many)
    assert len(set(zip(style.colours(many).values(), style.markers(many).values(), strict=True))) == len(many)
