"""The datasets that a run was trained and validated on, for MLflow's column and filter of datasets."""

import json
from typing import TYPE_CHECKING

from attnfd import paths
from attnfd.tracking import store

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

    from attnfd.data.prepared import Card


def inputs(card: "Card") -> list["DatasetInput"]:
    """The dataset twice, for training and for validation; MLflow needs a name for each."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": paths.prepared(card.name).as_posix()})
    profile = json.dumps({name: {"images": split.images} for name, split in card.splits.items()})
    return [
        DatasetInput(
            Dataset(name, store.short(card.sha256), "local", source, profile=profile),
            [InputTag("mlflow.data.context", context)],
        )
        for name, context in ((card.name, "training"), (f"{card.name}/val", "validation"))
    ]
