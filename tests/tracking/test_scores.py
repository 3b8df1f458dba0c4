"""Names and units of scores in MLflow."""

from attnfd.tracking import scores

METRICS = {
    "split": "test", "miou": 0.5, "mean_accuracy": 0.625, "pixel_accuracy": 0.75, "iou": {"sky": 0.25},
    "val": {"miou": 0.375, "mean_accuracy": 0.5}, "images": 4, "parameters": 7,
}  # fmt: skip


def test_a_test_split_gives_the_headline_and_val_is_beside_it() -> None:
    assert scores.of_evaluation(METRICS) == {
        ("miou",): 50, ("mean_accuracy",): 62.5, ("test", "pixel_accuracy"): 75, ("test", "iou", "sky"): 25,
        ("val", "miou"): 37.5, ("val", "mean_accuracy"): 50, ("data", "test_images"): 4,
        ("model", "parameters"): 7,
    }  # fmt: skip


def test_without_a_test_split_the_scores_of_val_are_there_once() -> None:
    assert scores.of_evaluation(METRICS | {"split": "val"}) == {
        ("miou",): 50, ("mean_accuracy",): 62.5, ("val", "pixel_accuracy"): 75, ("val", "iou", "sky"): 25,
        ("data", "val_images"): 4, ("model", "parameters"): 7,
    }  # fmt: skip
