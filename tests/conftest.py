"""One thread: small tensors gain nothing from more, and tests may run side by side."""

import torch

torch.set_num_threads(1)
