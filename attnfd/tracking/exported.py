"""A trained network in the store: weights, card, and the code that makes a network of them.

A logged model runs without this package: it has a copy of the modules that it needs, under a package name of
their own, so that models of several versions, and this package beside them, work in one process.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from attnfd.errors import UserError
from attnfd.paths import CARD, METRICS, MODEL
from attnfd.tracking import store
from attnfd.tracking.inputs import closure

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.models import Model

LOADER = "attnfd.tracking.class_maps"
"""The module that makes a Python function of a logged model."""

NETWORK = "network"
"""The folder of a logged model's data that has the card and the weights."""

REQUIREMENTS = ("numpy", "pydantic", "safetensors", "torch", "torchvision")
"""What the copied modules import, beside MLflow; a backbone of timm needs that, too."""


def log_model(run: str, name: str, folder: Path, example: "np.ndarray") -> None:
    """Log the network in `folder` to the run of this id by a name; see `Run.model`."""
    import mlflow
    from mlflow.models import Model

    with mlflow.start_run(run_id=run):
        info = Model.log(
            None,
            sys.modules[__name__],
            name=name,
            flavor_name="python_function",
            folder=folder,
            input_example=example,
            # A trial of the example would load the model.
            validate_serving_input=False,
        )
    _put(folder / MODEL, info.model_id)


def save_model(
    path: str, mlflow_model: "Model", folder: Path, input_example: "np.ndarray", **settings: Any
) -> None:
    """Write a logged model without its weights; called by MLflow, to which this module is a flavor.

    The signature allows any array: of another one, MLflow would cut the values to bytes before the function
    sees them.
    """
    import mlflow.pyfunc
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.models.model import MLMODEL_FILE_NAME
    from mlflow.types import Schema, TensorSpec

    from attnfd.models import from_timm

    classes = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1))])
    images = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))])
    with tempfile.TemporaryDirectory() as scratch:
        package = copy_code(Path(scratch))
        data = Path(scratch, NETWORK)
        data.mkdir()
        shutil.copyfile(folder / CARD, data / CARD)
        backbone = json.loads((folder / CARD).read_bytes())["architecture"]["backbone"]
        needed = (*REQUIREMENTS, "timm") if from_timm.has(backbone) else REQUIREMENTS
        mlflow.pyfunc.save_model(
            path,
            mlflow_model=mlflow_model,
            loader_module=LOADER.replace("attnfd", package.name, 1),
            data_path=str(data),
            code_paths=[str(package)],
            signature=ModelSignature(images, classes),
            input_example=input_example,
            # Given, because MLflow would load the model in another process to find out.
            pip_requirements=[f"{name}=={metadata.version(name).partition('+')[0]}" for name in needed],
        )
    mlflow_model.signature = ModelSignature(Schema([TensorSpec(np.dtype(object), (-1,))]), classes)
    assert mlflow_model.model_size_bytes is not None
    mlflow_model.model_size_bytes += (folder / MODEL).stat().st_size
    mlflow_model.save(str(Path(path, MLMODEL_FILE_NAME)))


def copy_code(folder: Path) -> Path:
    """Copy `LOADER` and what it imports of this package into a package in `folder`; returns the package.

    Its name ends in a digest of the code.
    """
    modules = {name: file.read_text(encoding="utf-8") for name, file in sorted(closure(LOADER).items())}
    digest = hashlib.sha256("".join(modules.values()).encode()).hexdigest()[:8]
    package = folder / f"attnfd_{digest}"
    for name, text in modules.items():
        file = package.joinpath(*name.split(".")[1:]).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        renamed = re.sub(r"(?m)^(\s*(?:from|import) )attnfd\b", rf"\g<1>{package.name}", text)
        file.write_text(renamed, encoding="utf-8")
    return package


def _put(weights: Path, model: str) -> None:
    """Add weights to a logged model: as a link in a store of files, which then has no copy of them."""
    import mlflow

    client = mlflow.MlflowClient()
    folder = f"data/{NETWORK}"
    location = urlsplit(client.get_logged_model(model).artifact_location)
    if location.scheme in ("", "file"):
        target = Path(unquote(location.path), folder, weights.name)
        target.unlink(missing_ok=True)
        try:
            os.link(weights, target)
        except OSError:  # Another disk, or a file system without links.
            shutil.copyfile(weights, target)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            Path(scratch, folder).mkdir(parents=True)
            Path(scratch, folder, weights.name).symlink_to(weights.absolute())
            client.log_model_artifacts(model, scratch)


def fetch(name: str, folder: Path) -> None:
    """Write a logged model into a folder as its stages did: card, weights, and metrics if it was evaluated.

    The model itself is not loaded, so that no code of whoever logged it runs.

    Args:
        name: id of a run, a registered model as `<name>@<alias>` (its name alone: `best`), or a `models:/` or
            `runs:/` URI.

    Raises:
        UserError: the store does not answer, or has no such model.
    """
    uri = name
    if ":/" not in name:
        uri = f"models:/{name}" if "@" in name else f"models:/{name}@best"
    with store.errors():
        client = store.connect_to_read(name)
        from mlflow.exceptions import MlflowException

        try:
            if re.fullmatch("[0-9a-f]{32}", name):
                uri = f"runs:/{name}"
                uri = _of_run(client, name)
            _fetch(client, uri, folder)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            allowed = "allowed: an id or a model that `attnfd ui` shows"
            raise UserError(f"{uri}: {store.reason(error)}; {allowed}") from None


def _of_run(client: "MlflowClient", run: str) -> str:
    """URI of the model that a run logged last.

    Raises:
        UserError: it has logged none.
    """
    outputs = client.get_run(run).outputs
    if not (outputs and outputs.model_outputs):
        raise UserError(f"runs:/{run}: has no model; evaluate the cell to log it")
    return f"models:/{outputs.model_outputs[-1].model_id}"


def _fetch(client: "MlflowClient", uri: str, folder: Path) -> None:
    import mlflow

    run = mlflow.models.get_model_info(uri).run_id
    logged = {file.path for kind in ("training", "evaluation") for file in client.list_artifacts(run, kind)}
    for file in {f"training/{CARD}", f"evaluation/{METRICS}"} & logged:
        Path(client.download_artifacts(run, file, str(folder))).replace(folder / Path(file).name)
    model = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder / "model")))
    weights = model / "data" / NETWORK / MODEL
    if not weights.is_file():
        raise UserError(f"{uri}: has no {MODEL} beside it; evaluate the model again to log it anew")
    weights.replace(folder / MODEL)
