"""Settings of all tests."""

import os

import torch

from attnfd.tracking.store import ENVIRONMENT

# Tests run in parallel, with tensors that are too small for several threads.
torch.set_num_threads(1)

# Before any module imports MLflow, which reads them only at its import.
os.environ |= ENVIRONMENT
