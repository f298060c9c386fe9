"""Between two logs no number leaves the device: on a GPU each would be a wait."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from data import Spec
from runtime.logger import Logger
from tests.helpers import agent, batch

CONTINUOUS, DISCRETE = Spec(3, 2, discrete=False), Spec(3, 2, discrete=True)
KINDS = {
    "a2c": ("a2c", DISCRETE, {"normalise_obs": True}),
    "ppo": ("ppo", CONTINUOUS, {"epochs": 2, "batch_size": 10, "target_kl": 0.01}),
    "sac": ("sac", CONTINUOUS, {"policy_delay": 2, "normalise_obs": True, "max_grad_norm": 1.0}),
    "sac of distributions": ("sac", CONTINUOUS, {"atoms": 11}),
    "sac_discrete": ("sac_discrete", DISCRETE, {"normalise_obs": True}),
}


class Reads(TorchDispatchMode):
    """Notes whatever asks for a tensor's value, or for a shape that depends on one.

    But for `flags`, at which PPO looks where that costs nothing: on a CPU.
    """

    WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.equal", "aten.masked_select",
             "aten._unique2")  # fmt: skip

    def __init__(self, *flags):
        super().__init__()
        self.flags, self.found = flags, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        by_mask = str(func._overloadpacket) == "aten.index" and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        known = any(args and args[0] is flag for flag in self.flags)
        if (by_mask or str(func._overloadpacket) in self.WAITS) and not known:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", KINDS)
def test_updates_and_their_metrics_read_no_number(kind):
    name, spec, changes = KINDS[kind]
    learner, logger = agent(name, spec, **changes), Logger()
    rows = (5, 4) if learner.settings.on_policy else (8,)
    fresh = batch(4, spec=spec)
    with Reads(learner.optimizer.diverged, getattr(learner, "stopped", None)) as reads:
        for seed in range(3):
            learner.observe(fresh)
            logger.add(learner.update(batch(*rows, spec=spec, seed=seed)))
    assert not reads.found
    assert logger.rows


@pytest.mark.parametrize(
    "read",
    [lambda x: x.sum().item(), lambda x: bool(x.sum() > 0), lambda x: x[x > 0],
     lambda x: x.nonzero(), lambda x: float(x.max())],
)  # fmt: skip
def test_a_reading_is_noticed(read):
    with Reads() as reads:
        read(torch.tensor([1.0, -1.0, 2.0]))
    assert reads.found
