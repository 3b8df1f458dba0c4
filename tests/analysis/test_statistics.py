"""The interval of a difference, compared with SciPy, a plain loop, and simulations of a known difference."""

import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix, jaccard_score

from attnfd.analysis import statistics
from attnfd.errors import UserError
from attnfd.evaluation.metrics import scores

K = 3


def labels(rng, images=12, seeds=1):
    """Ground truth (N, P) and one prediction per seed; each seed is right at its own random pixels."""
    target = rng.integers(K, size=(images, 50))
    return target, [np.where(rng.random(target.shape) < 0.6, target, rng.integers(K)) for _ in range(seeds)]


def matrices(target, preds):
    return [
        np.stack([confusion_matrix(*image, labels=range(K)) for image in zip(target, pred, strict=True)])
        for pred in preds
    ]


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_the_mean_is_the_difference_of_scikit_learns_mious(rng):
    target, preds = labels(rng, seeds=4)
    a, b = preds[:2], preds[2:]
    found = statistics.paired(matrices(target, a), matrices(target, b))
    mious = [
        [jaccard_score(target.ravel(), pred.ravel(), average="macro") for pred in method] for method in (a, b)
    ]
    assert found.mean == pytest.approx(np.mean(mious[1]) - np.mean(mious[0]))
    assert (found.seeds, found.images) == (2, 12)


@pytest.mark.parametrize("seeds", [1, 3])
def test_bounds_match_a_plain_loop(rng, seeds):
    target, preds = labels(rng, seeds=2 * seeds)
    # A class that occurs in one image only is absent from many draws.
    target[1:][target[1:] == 2] = 0
    a, b = matrices(target, preds[:seeds]), matrices(target, preds[seeds:])
    found = statistics.paired(a, b, samples=200, seed=5)

    draws = np.random.default_rng(5)
    counts = draws.multinomial(12, [1 / 12] * 12, size=200)
    per_seed = [
        scores(y.sum(0))["miou"] - scores(x.sum(0))["miou"] for x, y in zip(a, b, strict=True)
    ]  # fmt: skip
    replicates = []
    for row in counts:
        drawn = np.repeat(np.arange(12), row)
        one = [
            scores(y[drawn].sum(0))["miou"] - scores(x[drawn].sum(0))["miou"]
            for x, y in zip(a, b, strict=True)
        ]
        replicates.append(sum(one) / seeds)
    if seeds > 1:
        replicates += draws.standard_t(seeds - 1, 200) * np.std(per_seed, ddof=1) / seeds**0.5
    low, high = np.percentile(replicates, [2.5, 97.5])
    assert found == pytest.approx((np.mean(per_seed), low, high, seeds, 12))


def test_one_seed_gives_scipys_bootstrap_of_the_images(rng):
    target, preds = labels(rng, images=40, seeds=2)
    (a,), (b,) = matrices(target, preds[:1]), matrices(target, preds[1:])
    found = statistics.paired([a], [b], samples=10_000)
    expected = stats.bootstrap(
        (np.arange(40),),
        lambda drawn: scores(b[drawn].sum(0))["miou"] - scores(a[drawn].sum(0))["miou"],
        method="percentile", n_resamples=3000, vectorized=False, rng=np.random.default_rng(1),
    )  # fmt: skip
    width = found.high - found.low
    assert [found.low, found.high] == pytest.approx(expected.confidence_interval, abs=0.06 * width)


def test_one_image_gives_the_t_interval_of_the_seeds():
    # With one image, every draw is that image, so the interval is that of the paired t-test.
    a = [np.array([[[50, 0], [0, 50]]])] * 5
    b = [np.array([[[50 - wrong, wrong], [wrong, 50 - wrong]]]) for wrong in (1, 2, 3, 5, 4)]
    ious = [(50 - wrong) / (50 + wrong) - 1 for wrong in (1, 2, 3, 5, 4)]
    found = statistics.paired(a, b, samples=100_000)
    low, high = stats.t.interval(0.95, 4, np.mean(ious), stats.sem(ious))
    assert found.mean == pytest.approx(np.mean(ious))
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.05 * (high - low))
    assert found.verdict == "worse"


def world(rng, seeds, images, gain=0.0):
    """A method that is trained again: each seed has random luck, and images differ in difficulty."""
    difficulty = rng.normal(0, 0.05, images)

    def method(mean):
        right = np.clip(mean + rng.normal(0, 0.05, (seeds, 1)) + difficulty, 0, 1)
        hits = rng.binomial(200, np.stack([right, right], -1))
        wrong = 200 - hits
        rows = [np.stack([hits[..., 0], wrong[..., 0]], -1), np.stack([wrong[..., 1], hits[..., 1]], -1)]
        return list(np.stack(rows, -2))

    return method(0.7), method(0.7 + gain)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_it_covers_the_truth_in_95_of_100_cases(rng, seeds):
    worlds = [statistics.paired(*world(rng, seeds, 20), samples=400, seed=i) for i in range(1000)]
    covered = np.mean([found.verdict == "not significant" for found in worlds])
    assert 0.93 <= covered <= 0.97


def test_one_seed_does_not_cover_the_chance_of_training(rng):
    worlds = [statistics.paired(*world(rng, 1, 20), samples=400) for _ in range(200)]
    assert np.mean([found.verdict == "not significant" for found in worlds]) < 0.5


def test_a_real_gain_is_found(rng):
    a, b = world(rng, 5, 50, gain=0.2)
    assert statistics.paired(a, b).verdict == "better"
    assert statistics.paired(b, a).verdict == "worse"


def test_methods_exchanged_give_the_interval_mirrored(rng):
    a, b = world(rng, 1, 30)
    there, back = statistics.paired(a, b), statistics.paired(b, a)
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low))


def test_a_method_and_itself_do_not_differ_significantly(rng):
    a, _ = world(rng, 3, 30)
    found = statistics.paired(a, a)
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert found.verdict == "not significant"


def test_equal_input_gives_equal_numbers(rng):
    a, b = world(rng, 3, 30)
    assert statistics.paired(a, b) == statistics.paired(a, b)
    assert statistics.paired(a, b) != statistics.paired(a, b, seed=1)


def test_the_size_of_voc_takes_a_moment(rng):
    a, b = (list(rng.integers(9, size=(1, 1449, 21, 21))) for _ in "ab")
    start = time.perf_counter()
    statistics.paired(a, b)
    assert time.perf_counter() - start < 5  # 0.4 s on an idle core


def save(name, ids, matrices):
    np.savez_compressed(name, ids=np.array(ids), matrices=np.array(matrices, dtype=np.uint32))


def test_files_are_paired_in_their_order(tmp_path):
    worse, better = [[[3, 1], [0, 4]]], [[[4, 0], [0, 4]]]
    for name, matrix in {"a": worse, "b": better}.items():
        save(tmp_path / f"{name}.npz", ["x"], matrix)
    found = statistics.difference([tmp_path / "a.npz"], [tmp_path / "b.npz"])
    assert found == pytest.approx((1 - (3 / 4 + 4 / 5) / 2, 0.225, 0.225, 1, 1))
    assert found.verdict == "better"


@pytest.mark.parametrize(
    ("ids", "matrices"), [(["y"], [np.eye(2)]), (["x", "y"], [np.eye(2)] * 2), (["x"], [np.eye(3)])]
)
def test_files_of_other_images_are_refused(tmp_path, ids, matrices):
    save(tmp_path / "a.npz", ["x"], [np.eye(2)])
    save(tmp_path / "b.npz", ids, matrices)
    with pytest.raises(
        UserError, match=r"b\.npz: found \d images .*; allowed: the 1 images of 2 classes of .*a\.npz"
    ):
        statistics.difference([tmp_path / "a.npz"], [tmp_path / "b.npz"])


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            (-0.0095, -0.0301, -0.0012, 3, 100),
            "kd is worse than none by −0.95 mIoU (95 % CI −3.01 … −0.12; 3 seeds, 100 images)",
        ),
        (
            (0.0005, -0.0132, 0.0149, 1, 101),
            "kd does not differ significantly from none: +0.05 mIoU (95 % CI −1.32 … +1.49; "
            "one seed, 101 images: covers the choice of images, not the randomness of training)",
        ),
    ],
)
def test_in_words(found, words):
    assert statistics.sentence(statistics.Difference(*found), "none", "kd") == words


def test_both_methods_are_averaged_over_the_classes_of_the_ground_truth() -> None:
    clean, stray = np.array([[4, 0, 0], [1, 3, 0], [0, 0, 0]]), np.array([[4, 0, 0], [1, 2, 1], [0, 0, 0]])
    found = statistics.paired([clean[None]], [stray[None]], samples=10)
    assert found.mean == pytest.approx((2 / 4 - 3 / 4) / 2)
