"""Settings of the whole suite."""

import os

import torch

# Tests run side by side, on tensors too small to share between threads.
torch.set_num_threads(1)

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
