"""A trained network in the store: an exported graph that runs without this package."""

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


def log_model(network: "nn.Module", example: "np.ndarray") -> None:
    """Log a network to the active run as `model`; see `Run.model`."""
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from attnfd.classmap import ClassMap

    # On the CPU: MLflow loads an exported model only on the kind of device that it was exported on.
    model = ClassMap(copy.deepcopy(network).cpu()).eval()
    mlflow.pytorch.log_model(
        model,
        name="model",
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
            outputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1))]),
        ),
        input_example=example,
        # Given, because MLflow would load the model in another process to find out.
        pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", f"numpy=={np.__version__}"],
        serialization_format="pt2",
        # A trial of the example takes as long as half the export.
        validate_serving_input=False,
    )
