"""Going on with a stream of random numbers."""

import torch
from torch import Tensor


def go_on(generator: torch.Generator, state: Tensor) -> None:
    """Sets the generator to a state that was saved.

    That of another kind of device (a processor's, a GPU's) means nothing to it: it stays as it is.
    """
    if state.numel() == generator.get_state().numel():
        generator.set_state(state.cpu())
