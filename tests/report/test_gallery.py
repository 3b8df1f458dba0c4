"""Which cells and images the figures of a report show, and what their captions say."""

import numpy as np
import pandas as pd
import pytest

from attnfd import paths
from attnfd.analysis import tables
from attnfd.errors import UserError
from attnfd.report import gallery
from tests.report import synthetic


def draw(settings, mious, change=lambda cells: None, images=4):
    prepared = synthetic.dataset(sizes=[synthetic.SIZE] * images)
    cells = synthetic.results(settings, mious)
    change({cell.name: cell for cell in cells})
    found = tables.results(cells)
    of_variants = tables.ablation(found, settings, "tiny"), tables.settings(found, settings)
    return gallery.draw(prepared, cells, tables.comparison(found), *of_variants, tables.curves(cells))


def titles(picture, count):
    return [axes.get_title(loc="left") for axes in picture.figure.axes[:count]]


def runners_up(*rows):
    return gallery.runners_up(pd.DataFrame(rows, columns=["student", "method", "miou"]))


def test_the_runner_up_is_the_best_method_beside_attnfd():
    teacher = ("teacher", "", 0.9)
    of_a = ("a", "none", 0.3), ("a", "kd", 0.4), ("a", "attnfd", 0.5)
    assert runners_up(teacher, *of_a, ("b", "none", 0.2), ("b", "kd", 0.1)) == {"a": "kd", "b": "none"}
    assert runners_up(teacher, ("a", "attnfd", 0.5)) == {}
    assert runners_up(teacher, ("a", "kd", 0.4), ("a", "at", 0.4)) == {"a": "kd"}  # of equals the first


def test_every_figure_has_a_caption_and_stands_in_order():
    drawn = draw(synthetic.params(), synthetic.ONE_SEED)
    assert list(drawn) == [
        "comparison", "sizes", "curves", "per_class", "ablation", "gains", "confusion",
        "overlays_resnet18", "attention_resnet18",
    ]  # fmt: skip
    assert all(picture.caption.endswith(".") for picture in drawn.values())


def test_one_method_alone_is_compared_with_nothing():
    only = {
        name: miou for name, miou in synthetic.ONE_SEED.items() if "none" not in name and "kd" not in name
    }
    drawn = draw(synthetic.params(methods=["attnfd"]), only)
    assert "gains" not in drawn
    assert titles(drawn["overlays_resnet18"], 4) == ["image", "ground truth", "attnfd", "teacher"]
    assert "disagree" not in drawn["overlays_resnet18"].caption


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
    assert titles(picture, 2) == ["resnet18, attnfd", "teacher"]
    # 4 × (1 + 2 + 3) hits and 4 × 3 misses of the first class.
    assert picture.figure.axes[0].images[0].get_array()[0].tolist() == pytest.approx([200 / 3, 100 / 3, 0])


def test_overlays_show_the_first_seed_of_three_methods_and_the_images_in_dispute():
    def change(cells):
        for cell in cells.values():
            # Other seeds, and the teacher, say something else; nobody may ask them.
            other = cell.seed != 0
            maps = {f"image{number}": np.full(synthetic.SIZE, other, dtype=np.uint8) for number in range(8)}
            if cell.name == "resnet18-kd-0":  # the runner-up contradicts the others here and there
                maps["image5"][:, :4] = maps["image6"][:] = maps["image2"][:, :2] = 2
            np.savez(cell.results / paths.PREDICTIONS, **maps)

    mious = synthetic.THREE_SEEDS | {f"resnet18-kd-{seed}": 0.69 for seed in range(3)}
    picture = draw(synthetic.params(seeds=[0, 1, 2]), mious, change, images=8)["overlays_resnet18"]
    assert titles(picture, 6) == ["image", "ground truth", "none", "kd", "attnfd", "teacher"]
    rows = [picture.figure.axes[start : start + 6] for start in range(0, 36, 6)]
    assert [row[0].images[0].get_array()[0, 0, 0] // 10 for row in rows] == [1, 4, 6, 5, 2, 0]
    assert [row[0].get_ylabel() for row in rows] == ["evenly\nspread"] * 3 + ["most\ndifferent"] * 3
    painted = [axes.images[0].get_array()[3, 3].tolist() for axes in rows[3][2:]]
    assert painted == [list(synthetic.PALETTE[index]) for index in (0, 2, 0, 1)]
    assert "seed 0" in picture.caption
    assert "3 of 8 validation images, evenly spread; then 3 more" in picture.caption


def test_attention_shows_the_images_that_the_evaluation_stored():
    picture = draw(synthetic.params(), synthetic.ONE_SEED)["attention_resnet18"]
    image, teacher, student = picture.figure.axes
    assert image.images[0].get_array()[0, 0].tolist() == [10, 10, 10]
    assert titles(picture, 3) == ["image", "teacher\nraw", "student\nraw"]
    assert np.unique(student.images[0].get_array()).tolist() == [7]
    assert teacher.get_visible()


@pytest.mark.parametrize("name", [paths.CONFUSION, paths.PREDICTIONS, paths.ATTENTION])
def test_what_is_missing_is_named(name):
    with pytest.raises(UserError, match=rf"resnet18/attnfd/0/{name}: not found"):
        draw(
            synthetic.params(),
            synthetic.ONE_SEED,
            lambda cells: (cells["resnet18-attnfd-0"].results / name).unlink(),
        )
