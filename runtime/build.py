"""From a validated configuration to the parts of a run."""

import re
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from agents import make_agent
from agents.base import BaseAgent, Stream
from common.errors import ConfigError, EnvironmentFault, warn
from common.seeding import derive, stream
from common.tree import digest
from configs.agents import AgentConfig
from configs.automatic import updates
from configs.schema import MASKING, TrainConfig
from configs.validate import show
from data import Batch, Replay, Rollout, Spec, Transition
from data.stacks import StackReplay
from envs.envs import Envs, pack
from envs.spaces import masks_in
from runtime.accelerate.acceleration import accelerate
from runtime.divergence import Recorded
from runtime.evaluation import Evaluator, several_or_one
from runtime.launch.ranks import ALONE, Ranks
from runtime.memory import PIECE, require_memory
from storage.checkpoint import taking_up
from storage.segments import pieces

DIGESTED_ROWS = 1 << 16  # steps of a replay at a time


@dataclass
class Parts:
    """Everything stateful of a run."""

    agent: BaseAgent
    envs: Envs
    buffer: Any  # a Replay or a Rollout
    evaluator: Evaluator | None  # None: nothing is evaluated

    def close(self) -> None:
        self.envs.close()
        if self.evaluator is not None:
            self.evaluator.close()

    @property
    def replay(self) -> Replay | None:
        """The buffer where it is a replay."""
        return self.buffer if isinstance(self.buffer, Replay) else None

    def digest(self) -> str:
        """SHA-256 over all that the next step depends on, the content of the buffer too."""
        rows, replay = [], self.replay
        if replay is not None and replay.count:
            most = DIGESTED_ROWS * replay.count
            spans = pieces(replay, replay.first_row, most)
            rows = [digest(replay.copy_rows(*span)) for span in spans]
        return digest(
            {
                "agent": self.agent.state_dict(),
                "buffer": self.buffer.state_dict(),
                "rows": rows,
                "envs": self.envs.state_dict(),
            }
        )


def make_parts(config: TrainConfig, ranks: Ranks = ALONE) -> Parts:
    """Environments, agent, buffer and evaluator of one rank; creates no file.

    Raises ConfigError where they do not fit together, EnvironmentFault where one cannot be made.
    """
    whole, config = config, ranks.own(config)
    device = make_device(config.device)
    set_up_torch(int(config.threads))
    with ExitStack() as undo:
        envs = make_envs(config)
        undo.callback(envs.close)

        def seeds(name: str) -> torch.Generator:
            return stream(whole.seed if name == "init" else config.seed, name, device)

        planned = updates(config)
        if planned < 1:
            agent_for(envs.spec, config.agent, seeds, 1)  # first, what can be trained at no length
            fewest = bisect_left(
                range(10**12), 1, key=lambda n: updates(replace(config, total_steps=n))
            )
            waits = "agent.n_steps" if config.agent.on_policy else "agent.learning_starts"
            raise ConfigError(
                f"total_steps: {whole.total_steps} ends before the first update; raise it to "
                f"{ranks.size * fewest} or more, or lower {waits}"
            )
        buffer = make_buffer(config, envs.spec, device, ranks)
        agent = agent_for(envs.spec, config.agent, seeds, planned)
        if ranks.size > 1:
            agent.optimizer.ranks = ranks
        if agent.caution is not None:
            warn(agent.caution)
        if config.accelerate != "none":
            accelerate(agent, config.accelerate, example(config, agent, buffer), envs.obs)
        agent.step = Recorded(agent.step)
        evaluator = None
        if config.eval.episodes:
            try:
                seed = derive(whole.seed, "evaluation")
                evaluator = Evaluator(
                    config.env, config.eval.episodes, seed, max_length=config.eval.max_length
                )
            except (EnvironmentFault, ConfigError) as fault:  # as training's could be made
                raise EnvironmentFault(
                    f"{fault.problem}, as another copy, for evaluations, beside training's; give "
                    "eval.episodes=0 where there can be no other"
                ) from fault
        undo.pop_all()
    copies = [*envs.backend.copies, *(evaluator.envs.backend.copies if evaluator else [])]
    if ranks.first and envs.spec.discrete and any(copy.offers for copy in copies):
        what = "it gives masks of its actions, and they are not used"
        warn(f'env {config.env.id}: {what}; "env.wrappers=[{MASKING}]", named last, uses them')
    return Parts(agent, envs, buffer, evaluator)


def make_envs(config: TrainConfig) -> Envs:
    """The environments of training; EnvironmentFault with advice where only one can be made."""
    env = config.env
    how, seed = env.vectorization, config.seed
    rest: dict[str, Any] = {"timeout": env.timeout, "wrappers": env.wrappers}
    make = partial(Envs, env.id, vectorization=how, kwargs=env.kwargs, seed=seed, **rest)
    envs, fault = several_or_one(make, int(env.num_envs))
    if fault is not None:
        envs.close()
        raise EnvironmentFault(
            f"{fault}; only one is possible: give env.num_envs=1, and eval.episodes=0 where "
            "evaluations cannot have another"
        )
    return envs


def make_buffer(config: TrainConfig, spec: Spec, device: torch.device, ranks: Ranks = ALONE) -> Any:
    """The buffer of the agent's kind; ConfigError where it would not fit into memory."""
    settings: Any = config.agent
    sharing = 1 if device.type == "cuda" else ranks.neighbours  # each has its own GPU
    require_memory(config, spec, device, sharing)
    if settings.on_policy:
        return Rollout(settings.n_steps, device)
    given = (
        settings.buffer_size,
        settings.batch_size,
        settings.learning_starts,
        settings.updates_per_step,
        stream(config.seed, "replay", device),
    )
    return Replay(*given) if spec.stack == 1 else StackReplay(*given, spec.stack)


def example(config: TrainConfig, agent: BaseAgent, buffer: Any) -> Batch:
    """A batch with the shapes of this run's: (T, N, ·) on-policy, else rows (B, ·) of the replay.

    Observations and rewards are noise, and the actions the agent's own, so that every layer has
    something to do and no gradient is a small difference of large ones.
    """
    settings: Any = config.agent
    spec, device, count = agent.spec, agent.device, int(config.env.num_envs)
    steps = settings.n_steps if settings.on_policy else -(-settings.batch_size // count)
    leading = (steps, count) if settings.on_policy else (steps * count,)
    noise = stream(0, "example")
    rows = torch.randn((2, *leading, spec.obs_dim - spec.image_bytes), generator=noise)
    if spec.mask:
        for mask in masks_in(spec, rows.numpy()):
            mask[:] = mask == mask.max(-1, keepdims=True)  # one action of each choice, and
            mask[..., 0] = 1.0  # the first
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
    made = (obs, action, reward, next_obs, never, never.clone(), latent)
    batch = Transition(*(field.to(device) for field in made))
    return batch if settings.on_policy else buffer.example(batch, count)


def agent_for(spec: Spec, settings: AgentConfig, seeds: Stream, planned: int) -> BaseAgent:
    """A fresh agent; ConfigError where its settings do not fit the environment."""
    try:
        return make_agent(spec, settings, seeds, planned)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def restore_agent(
    config: TrainConfig, spec: Spec, state: dict[str, Any], device: torch.device
) -> BaseAgent:
    """The agent of a run as it was at a checkpoint; StorageFault where it is not of that run."""
    agent = agent_for(spec, config.agent, partial(stream, config.seed, device=device), 1)
    with taking_up(state):
        agent.load_weights(state["agent"])
    return agent


def set_up_torch(threads: int) -> None:
    """Sets the number of threads, and lets numbers below 1e-38 count as 0.

    The moments of units that never fire decay to such numbers, after some 900 updates a quarter of
    all, and arithmetic with them is slow. Threads inherit the setting: it comes before the first.
    """
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)


@contextmanager
def torch_as_found() -> Iterator[None]:
    """Sets back what `set_up_torch` sets inside: a notebook continues after a run.

    Threads of torch that have begun inside keep counting small numbers as 0.
    """
    threads = torch.get_num_threads()
    flushed = bool(torch.tensor(1e-310, dtype=torch.float64) * 1.0 == 0.0)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed)


def make_device(name: str) -> torch.device:
    """The torch device; ConfigError where there is none."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ConfigError(f"device: {show(name)} is not one of cpu, cuda, cuda:N; give one")
    with suppress(RuntimeError, AssertionError):
        device = torch.device(name)
        torch.empty(0, device=device)
        return device
    raise ConfigError(f"device: {name} is not available; use device=cpu")
