"""A new run that begins with the weights and the normaliser of another, `init=RUN_DIR`."""

from pathlib import Path
from typing import Any

import torch

from agents.base import BaseAgent
from common.errors import ConfigError, warn
from configs.files import read_run, require_run
from configs.resume import assignment
from configs.schema import TrainConfig
from envs.spaces import require_same_spaces
from policies import POLICIES
from runtime.build import Parts, restore_agent
from storage.checkpoint import load_newest

NETWORK = (  # keys of an agent by which its weights have other shapes, or another meaning
    *("policy", "hidden", "activation", "normalise_obs", "unit_obs", "bounded_mean", "log_std"),
    *("log_std_min", "log_std_max", "log_std_bound", "shared_torso", "bounded_value", "critics"),
    *("normalise_critic", "atoms"),
)
IN_REWARDS = ("critic", "critic_target", "temperature")  # whose numbers have the unit of rewards
OF_BOXES = ("log_std", "bounded_mean")  # how keys begin that choices do not have


def begin_from(config: TrainConfig, parts: Parts) -> dict[str, Any]:
    """Loads the weights of the run `config.init` into a fresh agent, prints and returns what.

    The critics of another kind of agent are left, its temperature where the new run has a fixed
    one, and both where `reward_scale` is another. An average of the actor that is not there begins
    with the actor.

    Raises:
        ConfigError: there is no such run, its spaces are others, or its weights do not fit.
        StorageFault: no checkpoint of it is valid.
    """
    path, agent, spaces = require_run("init", str(config.init)), parts.agent, parts.envs.spaces
    there = read_run(path)
    try:
        step, state, warnings = load_newest(path, config.init_checkpoint, config=there)
    except ConfigError as error:
        raise ConfigError(f"init_checkpoint: {error.why}; {error.remedy}") from error
    warn(*warnings)
    require_same_spaces(config.env.id, state.get("spaces"), spaces, there.env.id)
    other = restore_agent(there, agent.spec, state, agent.device)
    found = {"actor_average": other.actor, **other.modules}
    if getattr(config.agent, "alpha", "auto") != "auto":
        found.pop("temperature", None)
    own = agent.modules
    if there.agent.reward_scale != config.agent.reward_scale:  # their returns have other units
        found = {name: one for name, one in found.items() if name not in IN_REWARDS}
    common = [name for name in own if type(own[name]) is type(found.get(name))]
    require_same_network(path, other, agent)
    for name in common:
        try:
            own[name].load_state_dict(found[name].state_dict())
        except RuntimeError as error:  # torch names the weight in the last line
            why = str(error).splitlines()[-1].strip()
            raise ConfigError(f"init: {name} does not fit, {why}; train anew") from error
    if agent.returns is not None:  # of episodes that the other run has not finished
        agent.returns.running = torch.zeros_like(agent.returns.running)
    taken = [name for name in common if own[name].state_dict()]  # a normaliser may have none
    anew = [*(name for name in own if name not in common), "optimiser", "buffer", "random numbers"]
    print(
        f"begins with {', '.join(taken)} of {path}, {there.agent.name} on {there.env.id} at step "
        f"{step:,}; anew: {', '.join(anew)}"
    )
    return {"run": f"{path}", "checkpoint_step": step, "taken": taken, "anew": anew}


def require_same_network(path: Path, other: BaseAgent, agent: BaseAgent) -> None:
    """Raises ConfigError where two agents have other keys of their networks, naming those."""
    names = {policy: name for name, policy in POLICIES.items()}
    old, new = ({**vars(one.settings), "policy": names[one.policy_class]} for one in (other, agent))
    if old["policy"] not in agent.fitting(agent.spec.kind):
        why = f"{path} has agent.policy={old['policy']}, which this agent cannot use"
        raise ConfigError(
            f"init: {why}; train that run with agent.policy={new['policy']}, or leave init out"
        )
    both = [key for key in NETWORK if key in old and key in new]
    if agent.spec.kind != "continuous":
        both = [key for key in both if not key.startswith(OF_BOXES)]
    if differing := {f"agent.{key}": old[key] for key in both if old[key] != new[key]}:
        keys = " ".join(assignment(key, differing) for key in differing)
        raise ConfigError(f"init: {path} has another network, {keys}; give these keys, too")
