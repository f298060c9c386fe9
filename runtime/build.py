"""From a validated configuration to the parts of a run."""

import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from agents import make_agent
from agents.base import BaseAgent
from common.errors import ConfigError, EnvironmentFault, of_making
from common.seeding import derive, stream
from common.tree import digest
from data import Batch, Replay, Rollout, Spec, Transition
from data.packing import pack
from envs.envs import Envs
from runtime.accelerate.acceleration import accelerate
from runtime.divergence import Recorded
from runtime.evaluation import Evaluator
from runtime.launch.ranks import ALONE, Ranks
from runtime.memory import PIECE, require_memory
from storage.checkpoint import taking_up
from storage.segments import pieces

if TYPE_CHECKING:
    from configs.agents import AgentConfig
    from configs.schema import TrainConfig


DIGESTED_ROWS = 1 << 16  # steps of a replay at a time


@dataclass
class Parts:
    """Everything stateful of a run."""

    agent: BaseAgent
    envs: Envs
    buffer: Any
    evaluator: Evaluator | None  # None: nothing is evaluated

    def close(self) -> None:
        self.envs.close()
        if self.evaluator is not None:
            self.evaluator.close()

    @property
    def replay(self) -> Replay | None:
        """The buffer where it is a replay."""
        return self.buffer if isinstance(self.buffer, Replay) else None

    def load_buffer(self, state: dict[str, Any], pieces: Iterator[dict[str, Tensor]]) -> None:
        """Restores the buffer; `pieces` are the rows of a replay."""
        if self.replay is not None:
            self.replay.load_state_dict(state, pieces)
        else:
            self.buffer.load_state_dict(state)

    def digest(self) -> str:
        """SHA-256 over all that the next step depends on.

        Parameters, optimiser, generators, the content of the buffer, and the environments.
        """
        rows, replay = [], self.replay
        if replay is not None and replay.count:
            most = DIGESTED_ROWS * replay.count
            for first, stop in pieces(replay, replay.first_row(), most):
                rows.append(digest(replay.rows(first, stop)))
        return digest(
            {
                "agent": self.agent.state_dict(),
                "buffer": self.buffer.state_dict(),
                "rows": rows,
                "envs": self.envs.state_dict(),
            }
        )


def make_parts(config: "TrainConfig", ranks: Ranks = ALONE) -> Parts:
    """Environments, agent, buffer and evaluator of one rank; creates no file.

    Raises:
        ConfigError: parts that do not fit together, or a device that is not there.
        EnvironmentFault: the environment cannot be made.
    """
    from configs.automatic import updates

    seed, asked, config = config.seed, config, ranks.own(config)
    device = make_device(config.device)
    set_up_torch(int(config.threads))
    with ExitStack() as undo:
        envs = make_envs(config)
        undo.callback(envs.close)
        planned = updates(config)
        if planned < 1:
            raise ConfigError(
                f"total_steps: {config.total_steps * ranks.size} ends before the first update; "
                f"raise it to {fewest_steps(asked, ranks.size)} or more"
            )
        sharing = 1 if device.type == "cuda" else ranks.neighbours  # each has its own GPU
        buffer = make_buffer(config, envs.spec, device, sharing)

        def seeds(name: str) -> torch.Generator:
            return stream(seed if name == "init" else config.seed, name, device)

        agent = agent_for(envs.spec, config.agent, seeds, planned)
        if ranks.size > 1:
            agent.optimizer.ranks = ranks
        if agent.caution is not None and ranks.first:
            print(f"warning: {agent.caution}", file=sys.stderr)
        if config.accelerate != "none":
            accelerate(agent, config.accelerate, example(config, agent, buffer), envs.obs)
        agent.step = Recorded(agent.step)
        evaluator = None
        if config.eval.episodes:
            evaluator = make_run_evaluator(config, derive(seed, "evaluation"))
        undo.pop_all()
    return Parts(agent, envs, buffer, evaluator)


def make_envs(config: "TrainConfig") -> Envs:
    """The environments of training; EnvironmentFault with advice where only one can be made."""
    env = config.env

    def make(count: int) -> Envs:
        return Envs(env.id, count, env.vectorization, env.kwargs, config.seed, env.timeout)

    count = int(env.num_envs)
    try:
        return make(count)
    except (EnvironmentFault, ConfigError) as fault:
        if count == 1 or not of_making(fault):
            raise
        try:
            make(1).close()
        except (EnvironmentFault, ConfigError):
            raise fault from None
        raise EnvironmentFault(
            f"{fault.problem}, with {count} copies; one alone can be had: give env.num_envs=1, and "
            "eval.episodes=0 where evaluations cannot have another"
        ) from fault


def make_run_evaluator(config: "TrainConfig", seed: int) -> Evaluator:
    """The evaluator of a run; one that cannot be made is a fault: training's environments were."""
    try:
        return make_evaluator(config, config.eval.episodes, seed)
    except (EnvironmentFault, ConfigError) as fault:
        raise EnvironmentFault(
            f"{fault.problem}, as another copy, for evaluations, beside training's; give "
            "eval.episodes=0 where there can be no other"
        ) from fault


def fewest_steps(config: "TrainConfig", size: int) -> str:
    """The steps up to the first update of `size` processes, in terms of the settings."""
    settings: Any = config.agent
    if settings.on_policy:
        steps = f"agent.n_steps={settings.n_steps} x env.num_envs={config.env.num_envs}"
    else:
        due = math.ceil(1.0 / settings.updates_per_step)
        due += int(due * settings.updates_per_step) < 1  # of rounding
        steps = f"agent.learning_starts={settings.learning_starts}"
        if size > 1:
            steps = f"{math.ceil(settings.learning_starts / size) + due - 1}"
        elif due > 1:
            steps += f" + {due - 1}"
    return f"{steps} x {size} processes" if size > 1 else steps


def make_buffer(config: "TrainConfig", spec: Spec, device: torch.device, processes: int = 1) -> Any:
    """The buffer of the agent's kind; ConfigError where it would not fit into memory."""
    settings: Any = config.agent
    require_memory(config, spec, device, processes)
    if settings.on_policy:
        return Rollout(settings.n_steps, device)
    return Replay(
        settings.buffer_size,
        settings.batch_size,
        settings.learning_starts,
        settings.updates_per_step,
        stream(config.seed, "replay", device),
    )


def example(config: "TrainConfig", agent: BaseAgent, buffer: Any) -> Batch:
    """A batch with the shapes of this run's: (T, N, ·) on-policy, else rows (B, ·) of the replay.

    Observations and rewards are noise, and the actions the agent's own, so that every layer has
    something to do and no gradient is a small difference of large ones.
    """
    settings: Any = config.agent
    spec, device = agent.spec, agent.device
    leading: tuple[int, ...] = (getattr(settings, "batch_size", 1),)
    if settings.on_policy:
        leading = (settings.n_steps, int(config.env.num_envs))
    noise = stream(0, "example")
    rows = torch.randn((2, *leading, spec.obs_dim - spec.image_bytes), generator=noise)
    if spec.image_bytes:
        shape = (2, *leading, spec.image_bytes)
        images = torch.randint(256, shape, generator=noise, dtype=torch.uint8)
        rows = torch.from_numpy(pack(rows.numpy(), images.numpy()))
    obs, next_obs = rows
    reward = torch.randn(leading, generator=noise)
    generator = stream(0, "example-action", device)
    parts = obs.flatten(0, -2).split(max(1, PIECE // (4 * spec.obs_dim)))
    acted = [agent.act(part, generator=generator) for part in parts]
    action, latent = (torch.cat(drawn).unflatten(0, leading) for drawn in zip(*acted, strict=True))
    never = torch.zeros(leading, dtype=torch.bool)
    made = (obs, action, reward, next_obs, never, never.clone())
    batch = Transition(*(rows.to(device) for rows in made))
    if settings.on_policy:
        return batch._replace(latent=latent.to(device))
    return buffer.example(batch, int(config.env.num_envs))


def agent_for(spec: Spec, settings: "AgentConfig", seeds: Any, planned: int) -> BaseAgent:
    """A fresh agent; ConfigError where its settings do not fit the environment."""
    try:
        return make_agent(spec, settings, seeds, planned)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def restore_agent(
    config: "TrainConfig", spec: Spec, state: dict[str, Any], device: torch.device
) -> BaseAgent:
    """The agent of a run as it was at a checkpoint.

    Raises:
        StorageFault: the checkpoint is not of this configuration.
    """
    seeds = partial(stream, config.seed, device=device)
    agent = agent_for(spec, config.agent, seeds, 1)
    with taking_up(state):
        agent.load_weights(state["agent"])
    return agent


def make_evaluator(
    config: "TrainConfig", episodes: int, seed: int, render: str | None = None
) -> Evaluator:
    """Evaluation never needs workers: native where training is, else sync.

    Where training has workers, a deadline stands for theirs. With `render`, a render_mode of
    Gymnasium's, one environment plays all episodes.
    """
    env, longest = config.env, config.eval.max_length
    if render is not None:
        kwargs = {**env.kwargs, "render_mode": render}
        try:
            return Evaluator(
                env.id, "sync", kwargs, episodes, seed, most_envs=1, max_length=longest
            )
        except ConfigError as error:
            if "render_mode" in str(error) or error.key == "env.kwargs":
                raise not_shown(env.id, render) from None
            raise
        except EnvironmentFault as fault:
            how = "video=true" if render == "rgb_array" else f"render={render}"
            raise EnvironmentFault(
                f"{fault.problem}, with render_mode={render}; mend its render, or leave {how} out"
            ) from fault
    mode = "native" if env.vectorization == "native" else "sync"
    deadline = env.timeout if env.vectorization == "async" else None
    return Evaluator(
        env.id, mode, env.kwargs, episodes, seed, deadline=deadline, max_length=longest
    )


def not_shown(env_id: str, render: str) -> ConfigError:
    key, value = ("video", "true") if render == "rgb_array" else ("render", render)
    return ConfigError(
        f"{key}: {env_id} cannot be shown; let it take Gymnasium's render_mode={render}, or leave "
        f"{key}={value} out"
    )


def set_up_torch(threads: int) -> None:
    """Sets the number of threads, and lets numbers below 1e-38 count as 0.

    The moments of units that never fire decay to such numbers, after some 900 updates a quarter of
    all, and arithmetic with them is slow. Threads inherit the setting: it comes before the first.
    """
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)


def make_device(name: str) -> torch.device:
    """The torch device; ConfigError where there is none."""
    try:
        if name.partition(":")[0] not in ("cpu", "cuda"):
            raise RuntimeError("no such kind")
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device: {name} is not there; use device=cpu") from error
    return device
