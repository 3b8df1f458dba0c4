"""The cells and images that the figures of a report show, and their captions."""

import numpy as np
import pandas as pd
import pytest

from attnfd import paths
from attnfd.analysis import tables
from attnfd.errors import UserError
from attnfd.report import budget, gallery, panels
from attnfd.report.names import Names
from attnfd.results import pictures
from tests.report import synthetic


def draw(settings, mious, change=lambda cells: None, images=4):
    prepared = synthetic.dataset(sizes=[synthetic.SIZE] * images)
    cells = synthetic.results(settings, mious)
    change({cell.name: cell for cell in cells})
    found = tables.results(cells)
    frames = {
        "comparison": tables.comparison(found),
        "ablation": tables.ablation(found, settings, "tiny"),
        "settings": tables.settings(found, settings),
        "curves": tables.curves(cells),
        "hours": budget.with_hours(tables.curves(cells), settings, prepared.card),
        "per_class": tables.per_class(cells),
    }
    return gallery.draw(prepared, cells, Names.of(settings, "tiny"), frames)


def titles(picture, count):
    return [axes.get_title(loc="left") for axes in picture.figure.axes[:count]]


def headings(picture):
    return [text.get_text() for text in picture.figure.texts]


def runners_up(*rows):
    return gallery.runners_up(pd.DataFrame(rows, columns=["student", "method", "miou"]))


def test_the_runner_up_is_the_best_method_beside_attnfd():
    teacher = ("teacher", "", 0.9)
    of_a = ("a", "none", 0.3), ("a", "kd", 0.4), ("a", "attnfd", 0.5)
    assert runners_up(teacher, *of_a, ("b", "none", 0.2), ("b", "kd", 0.1)) == {"a": "kd", "b": "none"}
    assert runners_up(teacher, ("a", "attnfd", 0.5)) == {}
    assert runners_up(teacher, ("a", "kd", 0.4), ("a", "at", 0.4)) == {"a": "kd"}  # the first of equal scores


def test_every_figure_has_a_caption_and_is_in_order():
    drawn = draw(synthetic.params(), synthetic.ONE_SEED)
    assert list(drawn) == [
        "comparison", "sizes", "curves", "per_class", "ablation", "gains", "confusion",
        "predictions_resnet18", "attention_resnet18",
    ]  # fmt: skip
    assert all(picture.caption.endswith(".") for picture in drawn.values())


def test_one_method_alone_is_compared_with_nothing():
    only = {
        name: miou for name, miou in synthetic.ONE_SEED.items() if "none" not in name and "kd" not in name
    }
    drawn = draw(synthetic.params(methods=["attnfd"]), only)
    assert "gains" not in drawn
    assert headings(drawn["predictions_resnet18"]) == [
        "image", "ground truth", "AttnFD", "teacher", "errors of AttnFD"
    ]  # fmt: skip


def test_confusion_is_of_the_best_student_and_all_its_seeds():
    def change(cells):
        for seed, hits in enumerate((1, 2, 3)):
            matrix = np.array([[hits, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=np.uint32)
            np.savez(
                cells[f"resnet18-attnfd-{seed}"].results / paths.CONFUSION,
                ids=[f"image{number}" for number in range(4)],
                matrices=[matrix] * 4,
            )

    picture = draw(synthetic.params(seeds=[0, 1, 2]), synthetic.THREE_SEEDS, change)["confusion"]
    assert titles(picture, 2) == ["ResNet-18, AttnFD", "ResNet-101, teacher"]
    # 4 × (1 + 2 + 3) hits and 4 × 3 misses of the first class.
    assert picture.figure.axes[0].images[0].get_array()[0].tolist() == pytest.approx([200 / 3, 100 / 3, 0])


def test_predictions_are_of_typical_images_of_the_largest_changes_and_of_a_failure():
    hits = {"none": [5, 5, 5, 5, 5, 5], "attnfd": [6, 7, 9, 8, 2, 3], "kd": [0] * 6}

    def change(cells):
        ids = [f"image{number}" for number in range(6)]
        for cell in cells.values():
            label = {"none": 0, "attnfd": 1, "kd": 2}.get(cell.method, 2)
            maps = {id: np.full(synthetic.SIZE, label, dtype=np.uint8) for id in ids}
            np.savez(cell.results / paths.PREDICTIONS, **maps)
            right = hits.get(cell.method, [10] * 6)
            matrices = [[[hit, 10 - hit, 0], [0, 0, 0], [0, 0, 0]] for hit in right]
            np.savez(cell.results / paths.CONFUSION, ids=ids, matrices=np.array(matrices, dtype=np.uint32))

    picture = draw(synthetic.params(), synthetic.ONE_SEED, change, images=6)["predictions_resnet18"]
    assert headings(picture) == [
        "image", "ground truth", "no distillation", "AttnFD", "teacher", "errors of AttnFD"
    ]  # fmt: skip
    axes = [axis for axis in picture.figure.axes if axis.images]
    rows = [axes[start : start + 6] for start in range(0, 36, 6)]
    lines = [row[0].texts[0].get_text() for row in rows]
    assert lines == [
        "typical: image0", "typical: image1", "largest gain: image2", "largest gain: image3",
        "largest loss: image4", "lowest mIoU: image5",
    ]  # fmt: skip
    assert [row[3].get_xlabel() for row in rows] == [f"mIoU {10 * hit}.0" for hit in hits["attnfd"]]
    painted = [axis.images[0].get_array()[3, 3].tolist() for axis in rows[0][2:5]]
    assert painted == [list(synthetic.PALETTE[index]) for index in (0, 1, 2)]
    wrong = rows[0][5].images[0].get_array()
    # The mask is class 1 left of the diagonal and ground to the right of it.
    assert wrong[3, 3].tolist() == list(pictures.RIGHT)
    assert wrong[3, 5].tolist() == list(pictures.WRONG)
    assert "Seed 0" in picture.caption


def test_attention_is_laid_over_the_images_that_the_evaluation_stored():
    picture = draw(synthetic.params(), synthetic.ONE_SEED)["attention_resnet18"]
    image, teacher, student = picture.figure.axes[:3]
    assert image.images[0].get_array()[0, 0].tolist() == [10, 10, 10]
    assert headings(picture) == ["image", "teacher:\nraw", "ResNet-18:\nraw"]
    assert image.texts[0].get_text() == "encoder"
    blended = panels.blend(np.full((6, 8, 3), 10, dtype=np.uint8), np.full((2, 2), 7, dtype=np.uint8))
    np.testing.assert_array_equal(student.images[0].get_array(), blended)
    assert teacher.get_visible()


def test_the_grid_of_all_layers_is_folded_away_behind_the_decoder():
    def change(cells):
        level = np.full((1, 2, 2), 7, dtype=np.uint8)
        levels = {f"teacher/{layer}/raw": level for layer in ("backbone", "encoder", "decoder")}
        np.savez(cells["resnet18-attnfd-0"].results / paths.ATTENTION, ids=["image1"], **levels)

    drawn = draw(synthetic.params(), synthetic.ONE_SEED, change)
    shown, grid = (drawn[f"{name}_resnet18"] for name in ("attention", "attention_all"))
    layers = [
        [axes.texts[0].get_text() for axes in picture.figure.axes if axes.texts] for picture in (shown, grid)
    ]
    assert layers == [["decoder"], ["backbone", "encoder", "decoder"]]
    assert (shown.folded, grid.folded) == (False, True)


def test_a_hot_place_stands_out_from_the_grey_image():
    image = np.full((4, 4, 3), (0, 128, 0), dtype=np.uint8)
    cold, hot = (
        panels.blend(image, np.full((1, 1), level, dtype=np.uint8))[0, 0].astype(int) for level in (0, 255)
    )
    assert hot.sum() > cold.sum() + 200
    assert panels.blend(image, np.zeros((1, 1), dtype=np.uint8)).shape == (
        panels.SMALLEST,
        panels.SMALLEST,
        3,
    )


@pytest.mark.parametrize("name", [paths.CONFUSION, paths.PREDICTIONS, paths.ATTENTION])
def test_what_is_missing_is_named(name):
    with pytest.raises(UserError, match=rf"resnet18/attnfd/0/{name}: not found"):
        draw(
            synthetic.params(),
            synthetic.ONE_SEED,
            lambda cells: (cells["resnet18-attnfd-0"].results / name).unlink(),
        )


def test_components_are_colours_beside_the_heat_maps():
    def change(cells):
        networks = "teacher", "student"
        level = np.full((1, 2, 2), 7, dtype=np.uint8)
        colours = np.tile(np.array([250, 10, 60], dtype=np.uint8), (1, 2, 2, 1))
        maps = {f"{network}/encoder/raw": level for network in networks}
        maps |= {f"{network}/encoder/components": colours for network in networks}
        np.savez(cells["resnet18-attnfd-0"].results / paths.ATTENTION, ids=["image1"], **maps)

    picture = draw(synthetic.params(), synthetic.ONE_SEED, change)["attention_resnet18"]
    assert headings(picture) == [
        "image", "teacher:\nraw", "ResNet-18:\nraw", "teacher:\ncomponents", "ResNet-18:\ncomponents",
    ]  # fmt: skip
    shown = [axis.images[0].get_array() for axis in picture.figure.axes if axis.images]
    assert shown[4][0, 0].tolist() == [250, 10, 60]
    assert "fitted to the teacher's" in picture.caption
