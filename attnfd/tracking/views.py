"""What MLflow's pages show of a dataset's experiment by default.

MLflow stores it in tags of the experiment. A saved view is the compressed state of the page.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

NOTE = "mlflow.note.content"
"""The tag that MLflow shows as the description of a run or an experiment."""
HEADLINE = "metrics.`miou`"
SAVED = "mlflow.sharedViewState."
VERSION = "attnfd.views"
"""Tag with a digest of the views that an experiment has."""
WHO = ("tags.`student`", "tags.`method`", "tags.`variant`", "tags.`seed`")
SCORES = (HEADLINE, "metrics.`mean_accuracy`", "metrics.`val/pixel_accuracy`", "metrics.`val/fw_iou`")
COSTS = (
    "attributes.`Duration`",
    "metrics.`speed/training_seconds`",
    "metrics.`speed/seconds_per_step`",
    "metrics.`speed/images_per_second`",
    "metrics.`speed/peak_memory_mib`",
    "metrics.`speed/peak_device_memory_mib`",
    "metrics.`model/parameters`",
    "metrics.`model/macs`",
)
PICTURES = ("overlays", "confusion")
"""Pictures of a run that the charts show next to those of other runs."""
# Leaves out the parent runs of methods, which have the means over seeds: they are not models.
MODELS = "tags.`stage` != 'seeds'"


class View(NamedTuple):
    """A saved view: its name, its columns, the column that sorts its rows, and the tags that group them."""

    name: str
    columns: Sequence[str]
    order: str = HEADLINE
    ascending: bool = False
    groups: Sequence[str] = ()


LINE = {
    "xAxisKey": "step",
    "xAxisScaleType": "linear",
    "scaleType": "linear",
    "yAxisKey": "metric",
    "yAxisExpressions": [],
    "range": {},
    "lineSmoothness": 0,
    "useGlobalXaxisKey": True,
    "useGlobalLineSmoothing": True,
}
VIEWS = {
    "scores": View("Scores", (*WHO, *SCORES)),
    "cost": View("Cost", (*WHO, HEADLINE, *COSTS), "metrics.`speed/training_seconds`"),
    "seeds": View(
        "By method, mean over seeds",
        (*SCORES, "metrics.`speed/training_seconds`"),
        groups=("student", "method", "variant"),
    ),
}


def version() -> str:
    """A digest of all views; it changes when a view changes."""
    return hashlib.sha256(json.dumps([_state(view) for view in VIEWS.values()]).encode()).hexdigest()[:12]


def tags(dataset: str, experiment: str) -> dict[str, str]:
    """The description and the views of a dataset's experiment with this id."""
    saved = {f"{SAVED}{key}": _saved(view) for key, view in VIEWS.items()}
    return {NOTE: _note(dataset, experiment), **saved, VERSION: version()}


def page(experiment: str, view: str = "scores") -> str:
    """The page of an experiment's training runs in one of `VIEWS`; by default, the highest mIoU is first."""
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={view}"


def _note(dataset: str, experiment: str) -> str:
    links = " · ".join(f"[{view.name}]({page(experiment, key)})" for key, view in VIEWS.items())
    return (
        f"Models of **{dataset}**, a run for each. Saved views: {links}\n\n"
        f"The name of a run is `<student>-<method>-<seed>`, an ablation `<student>-attnfd-<variant>-<seed>`. "
        f"Scores are in per cent; `miou` is the mean IoU over the classes of the test images, or of the "
        f"validation images if there is no test split. "
        f"Reports are in the experiment `{dataset}-reports`.\n"
    )


def _saved(view: View) -> str:
    """A view as MLflow stores it."""
    packed = base64.b64encode(zlib.compress(json.dumps(_state(view)).encode(), 9)).decode()
    stamp = {"createdAt": 0, "updatedAt": 0}
    return json.dumps({"name": view.name, **stamp, "state": f"deflate;{packed}"})


def _state(view: View) -> dict[str, Any]:
    """The state of the page. For missing keys, the page uses its defaults."""
    return {
        "searchFilter": MODELS,
        "orderByKey": view.order,
        "orderByAsc": view.ascending,
        "selectedColumns": list(view.columns),
        "groupBy": _groups(view.groups),
        "runsHiddenMode": "SHOW_ALL",
        **_charts(),
    }


def _charts() -> dict[str, Any]:
    """The first section of the charts; the page appends a section for every other metric.

    Without it, the charts begin with the counts of the dataset, which are equal in all runs, and end with the
    pictures.
    """
    name = "Scores"
    charts: list[dict[str, Any]] = [
        {"type": "BAR", "metricKey": "miou"},
        {"type": "BAR", "metricKey": "mean_accuracy"},
        {"type": "LINE", "metricKey": "epoch/miou", **LINE},
        *({"type": "IMAGE", "imageKeys": [one], "step": 0, "showRunParams": False} for one in PICTURES),
    ]
    common = {"metricSectionId": name, "runsCountToCompare": 10, "deleted": False, "isGenerated": False}
    section = {"uuid": name, "name": name, "display": True, "isReordered": False, "deleted": False}
    return {
        "compareRunSections": [section],
        "compareRunCharts": [
            {"uuid": f"{name} {number}", **common, **chart} for number, chart in enumerate(charts)
        ],
        "isAccordionReordered": True,  # Without this, the page sorts sections by name.
    }


def _groups(tags: Sequence[str]) -> dict[str, Any] | None:
    if not tags:
        return None
    return {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "tag", "groupByData": tag} for tag in tags],
    }
