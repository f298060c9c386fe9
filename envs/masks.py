"""Masks of actions: found where environments give them, and made a part of the observation."""

from typing import Any

import gymnasium

from common.errors import ConfigError
from envs.spaces import MASK, has_mask, with_mask


def place(env: gymnasium.Env[Any, Any], info: dict[str, Any]) -> str:
    """Where an environment gives masks: "observation", "method" or "info"; "" without any."""
    if has_mask(env.observation_space):
        return "observation"
    if env.has_wrapper_attr("action_masks"):
        return "method"
    return "info" if MASK in info else ""


class ActionMask(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Observations with the mask of the actions that are permitted next, under `action_mask`.

    It is that of a Dict observation, of a method `action_masks()`, or of `info`. Raises ConfigError
    where there is none, or actions are continuous.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = with_mask(env.observation_space, env.action_space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        self.place = place(self.env, info)
        if not self.place:
            raise ConfigError(
                "env.wrappers: ActionMask: there is no mask, as info['action_mask'], a part "
                "action_mask of a Dict observation or a method action_masks(); leave ActionMask out"
            )
        return self.joined(obs, info), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self.joined(obs, info), reward, terminated, truncated, info

    def joined(self, obs: Any, info: dict[str, Any]) -> Any:
        if self.place == "observation":
            return obs
        method = self.place == "method"
        mask = self.env.get_wrapper_attr("action_masks")() if method else info.get(MASK)
        return {"observation": obs, MASK: mask}
