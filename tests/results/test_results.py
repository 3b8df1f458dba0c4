"""The folder that an evaluation writes."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from attnfd.config.schema import Evaluate
from attnfd.evaluation.metrics import SCORES
from attnfd.results import write
from tests.report import synthetic


class Constant(nn.Module):
    """Predicts class 1 everywhere."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([0.0, 1.0, 0.5]))

    def forward(self, images):
        return SimpleNamespace(logits=self.bias.view(1, -1, 1, 1).expand(len(images), -1, *images.shape[-2:]))


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return synthetic.dataset()


def evaluate(prepared, folder, **options):
    config = Evaluate(batch_size=3, kept=4, overlays=2, **options)
    return write.evaluate(Constant(), prepared, config, Path(folder))


def test_results_are_of_the_test_split_and_val_is_beside_them(prepared):
    card = prepared.card
    rows = prepared.index.copy()
    first = rows.index[rows["split"] == "val"][0]
    rows.loc[first, "split"] = "test"
    splits = {**card.splits, "test": card.splits["val"]}
    divided = replace(prepared, card=card.model_copy(update={"splits": splits}), index=rows)
    whole, found = (evaluate(given, folder).metrics for given, folder in ((prepared, "a"), (divided, "b")))
    assert (found["split"], found["images"], whole["images"]) == ("test", 1, 4)
    assert found["val"]["miou"] == pytest.approx(whole["miou"])  # The images are equal.
    with np.load("b/confusion.npz") as stored:
        assert list(stored["ids"]) == [rows.loc[first, "id"]]


def test_numbers_by_hand(prepared):
    # A mask of 6 × 8: 21 pixels on or below the diagonal, 1 void, 26 ground.
    found = evaluate(prepared, "out").metrics
    assert found == json.loads(Path("out/metrics.json").read_text())
    assert found["iou"] == {"ground": 0.0, "square": pytest.approx(21 / 47), "star": None}
    assert found["miou"] == pytest.approx(21 / 47 / 2)
    assert found["mean_accuracy"] == pytest.approx(1 / 2)
    assert found["pixel_accuracy"] == pytest.approx(21 / 47)
    assert found["fw_iou"] == pytest.approx(21 / 47 * 21 / 47)
    assert (found["collapsed"], found["images"], found["parameters"]) == (True, 4, 3)
    assert "resized" not in found
    assert found["split"] == "val"
    assert found["val"] == {name: found[name] for name in SCORES}

    table = pd.read_csv("out/per_class.csv").set_index("class")
    assert list(table["pixels"]) == [4 * 26, 4 * 21, 0]
    assert table.loc["square", "accuracy"] == 1
    assert table.loc["star", ["iou", "accuracy"]].isna().all()

    with np.load("out/confusion.npz") as stored:
        assert list(stored["ids"]) == ["image0", "image1", "image2", "image3"]
        assert stored["matrices"].dtype == np.uint32
        assert stored["matrices"].tolist() == [[[0, 26, 0], [0, 21, 0], [0, 0, 0]]] * 4


def test_images_that_are_kept_and_drawn(prepared):
    found = evaluate(prepared, "out")
    assert found.ids == ["image1", "image3"]
    assert found.images.dtype == torch.uint8
    assert found.images.shape == (2, 3, *synthetic.SIZE)
    assert found.images[:, 0, 0, 0].tolist() == [10, 30]
    with np.load("out/predictions.npz") as maps:  # in two batches
        assert list(maps) == ["image0", "image1", "image2", "image3"]
        assert all((pred == np.ones(synthetic.SIZE)).all() for pred in maps.values())


def test_pictures(prepared):
    found = evaluate(prepared, "out")
    energies = np.stack([np.array([[0.0, 50], [100, 100]]), np.zeros((2, 2))])
    cosines = {"student/encoder/agreement": np.array([[[-1.0, 0.2]], [[0.6, 1]]])}
    colours = {"teacher/encoder/components": np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)}
    write.write_attention(Path("out"), found, {"teacher": {"encoder/raw": energies}}, cosines, colours)
    with np.load("out/attention.npz") as stored:
        assert set(stored) == {"ids", "teacher/encoder/raw", "student/encoder/agreement", *colours}
        assert (stored["teacher/encoder/components"] == colours["teacher/encoder/components"]).all()
        assert stored["student/encoder/agreement"].tolist() == [[[0, 51]], [[153, 255]]]
        assert stored["ids"].tolist() == ["image1", "image3"]
        # Percentiles of 0, 50, 100, 100: the 2nd is 3, the 98th is 100; a map without contrast is dark.
        assert stored["teacher/encoder/raw"].tolist() == [[[0, 124], [255, 255]], [[0, 0], [0, 0]]]
    Path("history.csv").write_text("epoch,loss,ce,lr,miou\n1,2.0,1.5,0.01,\n2,1.5,1.0,0.001,0.3\n")
    write.write_curves(Path("out"), Path("history.csv"))
    for name in ("confusion.png", "overlays.png", "attention.png", "curves.png"):
        assert Image.open(f"out/{name}").format == "PNG"


def test_evaluation_at_a_short_side_is_beside_the_original(prepared):
    found = evaluate(prepared, "out", resize=3).metrics
    assert found["resized"].keys() == {"short_side", *SCORES}
    assert found["resized"]["short_side"] == 3
    assert found["pixel_accuracy"] == pytest.approx(21 / 47)


def test_equal_results_give_equal_bytes(prepared):
    evaluate(prepared, "first")
    evaluate(prepared, "second")
    names = sorted(file.name for file in Path("first").iterdir())
    assert len(names) == 6
    for name in names:
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes(), name
    for name in ("confusion.npz", "predictions.npz"):  # a zip contains the time of its files
        with zipfile.ZipFile(Path("first", name)) as archive:
            assert {file.date_time for file in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_tiles_of_an_evaluation_give_the_same_scores_where_pixels_are_independent(
    prepared, capsys: pytest.CaptureFixture[str]
):
    whole = evaluate(prepared, "whole").metrics
    tiled = evaluate(prepared, "tiled", tile=32, overlap=8).metrics
    assert {key: tiled[key] for key in ("miou", "images")} == {key: whole[key] for key in ("miou", "images")}
    assert "tiles of 32 × 32" in capsys.readouterr().out
