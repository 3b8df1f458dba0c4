"""A logged model as MLflow's Python function: it segments images, and refuses anything else in a sentence.

This file is copied into every logged model and runs from there, without this package.
"""

import json
from typing import Any

import mlflow.pytorch
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

SMALLEST = 17
"""Side of an image in pixels: an exported graph is not for feature maps of a single position."""


class Refused(MlflowException):
    """What was found, and what is allowed."""

    def __init__(self, found: str, allowed: str) -> None:
        self.sentence = f"inputs: found {found}; allowed: {allowed}"
        super().__init__(self.sentence, error_code=INVALID_PARAMETER_VALUE)

    def serialize_as_json(self) -> str:
        """The answer of a server, without the pixels that MLflow writes before the message."""
        return json.dumps({"error_code": self.error_code, "message": self.sentence})


class ClassMaps:
    """RGB images (B, H, W, 3) of whole numbers from 0 to 255 → class of every pixel (B, H, W), uint8."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def predict(self, inputs: Any, params: Any = None) -> np.ndarray:
        return self.model.predict(images(inputs))


def images(inputs: Any) -> np.ndarray:
    """Inputs as RGB images (B, H, W, 3), uint8.

    Raises:
        Refused: they are none.
    """
    shape = np.shape(inputs)
    if not isinstance(inputs, np.ndarray) or len(shape) != 4 or shape[0] == 0 or shape[3] != 3:
        raise Refused(f"the shape {shape}", "RGB images of one size, (images, height, width, 3)")
    if min(shape[1:3]) < SMALLEST:
        raise Refused(f"{shape[1]}×{shape[2]} pixels", f"at least {SMALLEST} pixels a side")
    numbers = "whole numbers from 0 to 255"
    # What JSON brings is an array of objects: a server that made bytes of them would turn 0.5 into 0.
    values = np.array(inputs.tolist()) if inputs.dtype == object else inputs
    if values.dtype.kind not in "iu":
        found = "floats" if values.dtype.kind == "f" else f"values of type {values.dtype.name}"
        raise Refused(found, f"{numbers}; multiply an image of 0 to 1 by 255 and round it")
    if values.min() < 0 or values.max() > 255:
        raise Refused(f"values from {values.min()} to {values.max()}", numbers)
    return values.astype(np.uint8)


def _load_pyfunc(path: str) -> ClassMaps:
    """Called by MLflow. On the CPU, where the graph was exported: it runs on no other device."""
    return ClassMaps(mlflow.pytorch._load_pyfunc(path, {"device": "cpu"}))
