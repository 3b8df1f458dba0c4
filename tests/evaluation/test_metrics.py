"""Confusion matrix and scores, compared with scikit-learn and values calculated by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn

from attnfd.evaluation.inference import confusion_matrices
from attnfd.evaluation.metrics import collapsed, scores

K = 5  # not a power of two: then sums and bit operations differ
SHAPE = (3, 4, 5)
predictions = hnp.arrays(np.int64, SHAPE, elements=st.integers(0, K - 1))
targets = hnp.arrays(np.uint8, SHAPE, elements=st.sampled_from([*range(K), 255]))


@settings(deadline=None, max_examples=50)
@given(predictions, targets)
def test_each_image_matches_scikit_learn(pred, target):
    found = confusion_matrices(torch.from_numpy(pred), torch.from_numpy(target), K)
    assert found.dtype == torch.int64
    for matrix, p, t in zip(found, pred, target, strict=True):
        known = t != 255
        if known.any():
            expected = sklearn.confusion_matrix(t[known], p[known], labels=range(K))
        else:
            expected = np.zeros((K, K))
        np.testing.assert_array_equal(matrix, expected)


@settings(deadline=None, max_examples=50)
@given(predictions, targets)
def test_scores_match_scikit_learn(pred, target):
    found = scores(confusion_matrices(torch.from_numpy(pred), torch.from_numpy(target), K).sum(0).numpy())
    known = target != 255
    if not known.any():
        return
    t, p = target[known], pred[known]
    occurring = sorted(set(t) | set(p))
    iou = sklearn.jaccard_score(t, p, labels=occurring, average=None)
    assert [value for value in found["iou"] if value is not None] == pytest.approx(iou)
    assert [index for index, value in enumerate(found["iou"]) if value is not None] == occurring
    assert found["miou_predicted"] == pytest.approx(iou.mean())
    in_target = sklearn.jaccard_score(t, p, labels=sorted(set(t)), average=None)
    assert found["miou"] == pytest.approx(in_target.mean())
    assert found["pixel_accuracy"] == pytest.approx(sklearn.accuracy_score(t, p))
    assert found["fw_iou"] == pytest.approx(sklearn.jaccard_score(t, p, average="weighted"))
    recall = sklearn.recall_score(t, p, labels=sorted(set(t)), average=None)
    assert [value for value in found["accuracy"] if value is not None] == pytest.approx(recall)
    assert found["mean_accuracy"] == pytest.approx(recall.mean())


def test_scores_by_hand():
    # Class 2 is predicted but absent from the ground truth; class 3 does not occur at all.
    matrix = np.array([[6, 0, 2, 0], [1, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    found = scores(matrix)
    assert found["iou"] == pytest.approx([6 / 9, 3 / 4, 0, None])
    assert found["accuracy"] == pytest.approx([6 / 8, 3 / 4, None, None])
    assert found["miou"] == pytest.approx((6 / 9 + 3 / 4) / 2)
    assert found["miou_predicted"] == pytest.approx((6 / 9 + 3 / 4 + 0) / 3)
    assert found["mean_accuracy"] == pytest.approx(3 / 4)
    assert found["pixel_accuracy"] == pytest.approx(9 / 12)
    assert found["fw_iou"] == pytest.approx((8 * 6 / 9 + 4 * 3 / 4) / 12)


def test_an_empty_matrix_scores_zero():
    found = scores(np.zeros((3, 3), dtype=np.int64))
    assert found == {
        "miou": 0.0,
        "mean_accuracy": 0.0,
        "pixel_accuracy": 0.0,
        "fw_iou": 0.0,
        "miou_predicted": 0.0,
        "iou": [None] * 3,
        "accuracy": [None] * 3,
    }


@pytest.mark.parametrize("label", [K, 9, 256])
def test_a_label_that_is_no_class_is_an_error(label):
    pred = torch.ones(1, 2, 2, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="out of bounds"):
        confusion_matrices(pred, torch.full((1, 2, 2), label), K)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[5, 0], [3, 0]], True),
        ([[5, 0], [2, 1]], False),
        ([[5, 0], [0, 0]], False),  # there was no other class to find
        ([[0, 0], [0, 0]], False),
    ],
)
def test_collapsed(matrix, expected):
    assert collapsed(np.array(matrix)) is expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_host_does_not_wait_for_the_device():
    pred = torch.zeros(2, 8, 8, dtype=torch.int64, device="cuda")
    target = torch.full((2, 8, 8), 255, dtype=torch.uint8, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        confusion_matrices(pred, target, K)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_one_pixel_counts_whole_and_absent_classes_are_never_divided_by():
    with np.errstate(all="raise"):
        found = scores(np.array([[1, 0], [0, 0]]))
    assert (found["pixel_accuracy"], found["fw_iou"], found["miou"]) == (1, 1, 1)
    assert found["accuracy"] == [1, None]


def test_a_stray_pixel_of_a_class_that_the_split_lacks() -> None:
    """It does not change the classes that `miou` averages: those of the ground truth, for every network."""
    clean, stray = np.array([[4, 0, 0], [1, 3, 0], [0, 0, 0]]), np.array([[4, 0, 0], [1, 2, 1], [0, 0, 0]])
    assert scores(clean)["miou"] == scores(clean)["miou_predicted"] == pytest.approx((4 / 5 + 3 / 4) / 2)
    assert scores(stray)["miou"] == pytest.approx((4 / 5 + 2 / 4) / 2)
    assert scores(stray)["miou_predicted"] == pytest.approx((4 / 5 + 2 / 4 + 0) / 3)
    assert scores(stray)["iou"][2] == 0
