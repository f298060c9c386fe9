"""Experience: one record, two buffers, pure functions."""

from data.replay import Replay
from data.returns import gae
from data.rollout import Rollout
from data.transition import Spec, Transition

__all__ = ["Replay", "Rollout", "Spec", "Transition", "gae"]
