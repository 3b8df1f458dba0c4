"""Settings of the whole suite."""

import os

import torch

from attnfd.tracking.store import ENVIRONMENT

# Tests run side by side, on tensors too small to share between threads.
torch.set_num_threads(1)

# Before any module imports MLflow, which reads them only then.
os.environ |= ENVIRONMENT
