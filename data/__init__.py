"""Experience: transitions, their buffers, returns."""

from data.replay import Replay
from data.returns import gae
from data.rollout import Rollout
from data.transition import Batch, Rows, Spec, Transition

__all__ = ["Batch", "Replay", "Rollout", "Rows", "Spec", "Transition", "gae"]
