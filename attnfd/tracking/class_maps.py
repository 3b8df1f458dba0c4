"""A logged model as MLflow's Python function: it segments images, and explains why it refuses other inputs.

Every logged model has a copy of this module and of all that it imports; see `attnfd.tracking.exported`.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from attnfd.evaluation.inference import ClassMap
from attnfd.models.restore import restore
from attnfd.runtime.arithmetic import true_float32

CARD, WEIGHTS = "card.json", "model.safetensors"


class Refused(MlflowException):
    """The error for invalid inputs: what was found, and what is allowed."""

    def __init__(self, found: str, allowed: str) -> None:
        self.sentence = f"inputs: found {found}; allowed: {allowed}"
        super().__init__(self.sentence, error_code=INVALID_PARAMETER_VALUE)

    def serialize_as_json(self) -> str:
        """The answer of a server, without the pixels that MLflow writes before the message."""
        return json.dumps({"error_code": self.error_code, "message": self.sentence})


class ClassMaps:
    """RGB images (B, H, W, 3) of whole numbers from 0 to 255 → class of every pixel (B, H, W), uint8."""

    def __init__(self, model: ClassMap, device: str) -> None:
        self._model = model.to(device)
        self._device = device

    def predict(self, inputs: Any, params: Any = None) -> np.ndarray:
        with torch.inference_mode(), true_float32():
            return self._model(torch.from_numpy(images(inputs)).to(self._device)).cpu().numpy()

    def get_raw_model(self) -> ClassMap:
        """The network as a `torch.nn.Module`; MLflow's model has a method of the same name."""
        return self._model


def images(inputs: Any) -> np.ndarray:
    """Inputs as RGB images (B, H, W, 3), uint8.

    Raises:
        Refused: they are not images.
    """
    shape = np.shape(inputs)
    if not isinstance(inputs, np.ndarray) or len(shape) != 4 or 0 in shape or shape[3] != 3:
        raise Refused(f"the shape {shape}", "RGB images of one size, (images, height, width, 3)")
    numbers = "whole numbers from 0 to 255"
    # Inputs from JSON are an array of objects. A cast to bytes would turn 0.5 into 0 without an error.
    values = np.array(inputs.tolist()) if inputs.dtype == object else inputs
    if values.dtype.kind not in "iu":
        found = "floats" if values.dtype.kind == "f" else f"values of type {values.dtype.name}"
        raise Refused(found, f"{numbers}; multiply an image of 0 to 1 by 255 and round it")
    if values.min() < 0 or values.max() > 255:
        raise Refused(f"values from {values.min()} to {values.max()}", numbers)
    return values.astype(np.uint8)


def _load_pyfunc(path: str) -> ClassMaps:
    """Load a logged model; MLflow calls this.

    It runs on `MLFLOW_DEFAULT_PREDICTION_DEVICE` if set, else on a GPU if there is one, else on the CPU.
    """
    folder = Path(path)
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    network = restore(card, folder / WEIGHTS, str(folder / CARD))
    device = os.environ.get("MLFLOW_DEFAULT_PREDICTION_DEVICE")
    return ClassMaps(ClassMap(network).eval(), device or ("cuda" if torch.cuda.is_available() else "cpu"))
