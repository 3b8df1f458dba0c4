"""A trained network in the store: weights, card, and the code that builds the network from them.

A logged model runs without this package. It has a copy of the modules that it needs, in a package with a
unique name. So models of several versions, and this package, work in one process.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from attnfd.config.section import validate
from attnfd.discovery import component
from attnfd.errors import UserError
from attnfd.models.restore import kind_name
from attnfd.paths import CARD, METRICS, MODEL
from attnfd.tracking import store
from attnfd.tracking.inputs import CODE, closure, imports

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.models import Model

LOADER = "attnfd.tracking.class_maps"
"""The module that makes a logged model a Python function."""

NETWORK = "network"
"""The folder of a logged model's data that has the card and the weights."""

REQUIREMENTS = ("numpy", "pydantic", "safetensors", "torch", "torchvision")
"""What the copied modules import besides MLflow. A kind of networks and your own code may need more."""

OWN = "own"
"""The folder of the copied package that has your own code."""


def log_model(run: str, name: str, folder: Path, example: "np.ndarray") -> None:
    """Log the network in `folder` to the run with this id, under a name; see `Run.model`."""
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
            # Validation with the example would load the model.
            validate_serving_input=False,
        )
    _put(folder / MODEL, info.model_id)


def save_model(
    path: str, mlflow_model: "Model", folder: Path, input_example: "np.ndarray", **settings: Any
) -> None:
    """Write a logged model without its weights. MLflow calls this; for MLflow, this module is a flavor.

    The signature allows any array. With a stricter one, MLflow would cut the values to bytes before the
    function gets them.
    """
    import mlflow.pyfunc
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.models.model import MLMODEL_FILE_NAME
    from mlflow.types import Schema, TensorSpec

    classes = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1))])
    images = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))])
    with tempfile.TemporaryDirectory() as scratch:
        card = json.loads((folder / CARD).read_bytes())
        package = copy_code(Path(scratch), card)
        data = Path(scratch, NETWORK)
        data.mkdir()
        own = card | {"architecture": architecture(card, package.name)}
        text = json.dumps(own, indent=2, sort_keys=True, ensure_ascii=False)
        (data / CARD).write_text(text + "\n", encoding="utf-8")
        mlflow.pyfunc.save_model(
            path,
            mlflow_model=mlflow_model,
            loader_module=LOADER.replace("attnfd", package.name, 1),
            data_path=str(data),
            code_paths=[str(package)],
            signature=ModelSignature(images, classes),
            input_example=input_example,
            # Without this list, MLflow would load the model in another process to find the requirements.
            pip_requirements=[f"{name}=={metadata.version(name).partition('+')[0]}" for name in needed(card)],
        )
    mlflow_model.signature = ModelSignature(Schema([TensorSpec(np.dtype(object), (-1,))]), classes)
    assert mlflow_model.model_size_bytes is not None
    mlflow_model.model_size_bytes += (folder / MODEL).stat().st_size
    mlflow_model.save(str(Path(path, MLMODEL_FILE_NAME)))


def copy_code(folder: Path, card: Mapping[str, Any]) -> Path:
    """Copy `LOADER` and what it imports from this package into a package in `folder`; returns the package.

    The copy includes the kind of the card's network, and your own code that builds it. The package's name
    ends with a digest of the code.
    """
    modules = closure(LOADER) | closure(f"attnfd.networks.{kind_name(card)}") | _builders(card)
    texts = {name: file.read_text(encoding="utf-8") for name, file in sorted(modules.items())}
    digest = hashlib.sha256("".join(texts.values()).encode()).hexdigest()[:8]
    package = folder / f"attnfd_{digest}"
    names = {top: f"{package.name}.{OWN}.{top}" for top in _own(modules)} | {"attnfd": package.name}
    for name, text in texts.items():
        place = modules[name].relative_to(CODE)
        copy = package / (place.relative_to("attnfd") if _top(name) == "attnfd" else OWN / place)
        copy.parent.mkdir(parents=True, exist_ok=True)
        for top in names:
            text = re.sub(rf"(?m)^(\s*(?:from|import) ){top}\b", rf"\g<1>{names[top]}", text)
        copy.write_text(text, encoding="utf-8")
    return package


def architecture(card: Mapping[str, Any], package: str) -> dict[str, Any]:
    """The network of a card, built by the code in a copied package."""
    found: dict[str, Any] = card["architecture"]
    return found | {"build": f"{package}.{OWN}.{found['build']}"} if found.get("build") else found


def _builders(card: Mapping[str, Any]) -> dict[str, Path]:
    """The modules of your own that build the card's network, if there are any, by name."""
    build = card["architecture"].get("build") or ""
    return closure(build.partition(":")[0])


def _top(name: str) -> str:
    return name.partition(".")[0]


def _own(modules: Iterable[str]) -> set[str]:
    """The top-level packages of your own among modules."""
    return {_top(name) for name in modules} - {"attnfd"}


def needed(card: Mapping[str, Any]) -> list[str]:
    """The packages that the network of a card needs besides MLflow."""
    kind = component("networks", kind_name(card))()
    modules = _builders(card)
    own = _own(modules)
    files = [file for name, file in modules.items() if _top(name) in own]
    imported = {_top(name) for file in files for name in imports(file)} - own - {"attnfd", "mlflow"}
    installed = metadata.packages_distributions()
    others = sorted(installed[top][0] for top in imported if top in installed)
    packages = kind.packages(validate(kind.Architecture, card["architecture"], CARD))
    return list(dict.fromkeys((*REQUIREMENTS, *packages, *others)))


def _put(weights: Path, model: str) -> None:
    """Add weights to a logged model. A store of files gets a link, not a copy."""
    import mlflow

    client = mlflow.MlflowClient()
    folder = f"data/{NETWORK}"
    location = urlsplit(client.get_logged_model(model).artifact_location)
    if location.scheme in ("", "file"):
        target = Path(url2pathname(location.path), folder, weights.name)
        target.unlink(missing_ok=True)
        try:
            os.link(weights, target)
        except OSError:  # Another disk, or a file system without links.
            shutil.copyfile(weights, target)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            Path(scratch, folder).mkdir(parents=True)
            copy = Path(scratch, folder, weights.name)
            try:
                copy.symlink_to(weights.absolute())
            except OSError:  # Windows allows links only to some users.
                shutil.copyfile(weights, copy)
            client.log_model_artifacts(model, scratch)


def fetch(name: str, folder: Path) -> None:
    """Write a logged model into a folder as a stage does: card, weights, and metrics if it was evaluated.

    This does not load the model, so no code in it runs.

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
        raise UserError(f"runs:/{run}: has no model; evaluate the cell to log its model")
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
        raise UserError(f"{uri}: has no {MODEL}; evaluate the model again to log it again")
    weights.replace(folder / MODEL)
