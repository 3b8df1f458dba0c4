"""Settings of the whole suite."""

import torch

# Tests run side by side, on tensors too small to share between threads.
torch.set_num_threads(1)
