"""A trained network in the store: an exported graph that runs without this package."""

import copy
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnfd.errors import UserError
from attnfd.paths import CARD, METRICS, MODEL
from attnfd.tracking import store

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.models import Model
    from torch import nn

CLASS_MAPS = "class_maps"
"""The module beside this one that a logged model takes with it."""


def log_model(run: str, name: str, network: "nn.Module", example: "np.ndarray") -> None:
    """Log a network to the run of this id by a name; see `Run.model`.

    Its weights lie beside it: reading them runs no code, which loading an exported graph may.
    """
    import mlflow
    import safetensors.torch
    from mlflow.models import Model

    from attnfd.evaluation.inference import ClassMap

    # On the CPU: MLflow loads an exported model only on the kind of device that it was exported on.
    model = ClassMap(copy.deepcopy(network).cpu()).eval()
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch, MODEL)
        state = {key: value.contiguous() for key, value in model.network.state_dict().items()}
        safetensors.torch.save_file(state, weights)
        with mlflow.start_run(run_id=run):
            Model.log(
                None,
                sys.modules[__name__],
                name=name,
                flavor_name="pytorch",
                model=model,
                input_example=example,
                # A trial of the example takes as long as half the export.
                validate_serving_input=False,
                extra_files=[str(weights)],
            )


def save_model(path: str, mlflow_model: "Model", model: "nn.Module", **settings: Any) -> None:
    """Write a logged model; called by MLflow, to which this module is a flavor.

    As MLflow's own for PyTorch, but its Python function is that of `class_maps`. The signature allows any
    array: of another one, MLflow would cut the values to bytes before the function sees them.
    """
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.models.model import MLMODEL_FILE_NAME
    from mlflow.types import Schema, TensorSpec

    classes = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1))])
    mlflow.pytorch.save_model(
        model,
        path,
        mlflow_model=mlflow_model,
        signature=ModelSignature(Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]), classes),
        # Given, because MLflow would load the model in another process to find out.
        pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", f"numpy=={np.__version__}"],
        serialization_format="pt2",
        code_paths=[str(Path(__file__).with_name(f"{CLASS_MAPS}.py"))],
        **settings,
    )
    function = mlflow_model.flavors["python_function"]
    function["loader_module"] = CLASS_MAPS
    del function["config"]
    mlflow_model.signature = ModelSignature(Schema([TensorSpec(np.dtype(object), (-1,))]), classes)
    mlflow_model.save(str(Path(path, MLMODEL_FILE_NAME)))


def fetch(name: str, folder: Path) -> None:
    """Write a logged model into a folder as its stages did: card, weights, and metrics if it was evaluated.

    The model itself is not loaded, so that no code of whoever logged it runs.

    Args:
        name: id of a run, a registered model's name (for its alias `best`), or a `models:/` or `runs:/` URI.

    Raises:
        UserError: the store does not answer, or has no such model.
    """
    uri = name if ":/" in name else f"models:/{name}@best"
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
    weights = model / "extra_files" / MODEL
    if not weights.is_file():
        raise UserError(f"{uri}: has no {MODEL} beside it; evaluate the model again to log it anew")
    weights.replace(folder / MODEL)
