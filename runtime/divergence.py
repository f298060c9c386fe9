"""Divergence: its cause, advice, and files that repeat the update that was not finite."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from agents import make_agent
from agents.base import BaseAgent
from common.errors import LogpiError, shown
from common.seeding import stream
from common.tree import join, split
from configs.files import read_run
from data import Batch, Spec, Transition
from networks.normalizer import Unpack
from storage.files import own_folder
from storage.provenance import ROOT
from storage.rundir import write_bytes, write_json, write_text

FOLDER = "divergence"
LARGE = 1e4  # a reward or an observation, from which on its size is the likeliest cause
SCRIPT = '''"""Repeats the update that was not finite; moved, run it in the folder of train.py."""

import sys
from pathlib import Path

sys.path[:0] = [{root!r}, str(Path.cwd())]
from runtime.divergence import repeat

for name, value in repeat(Path(__file__).parent).items():
    print(f"{{name}} {{value}}")
'''


class Recorded:
    """An agent's `step`, and the arguments of its last call."""

    def __init__(self, step: Callable[..., Any]) -> None:
        self.step = step
        self.arguments: tuple[Any, ...] = ()

    def __call__(self, *arguments: Any) -> Any:
        self.arguments = arguments
        return self.step(*arguments)


def cause(metrics: Mapping[str, Tensor]) -> str:
    """Which number of an update is not finite: a loss or gradient, if there is one."""
    for name in sorted(metrics, key=lambda name: not name.startswith(("loss/", "grad_norm/"))):
        if metrics[name].ndim == 0 and not metrics[name].isfinite():
            return f"{name} is {metrics[name].item()}"
    return "a loss or gradient is not finite"


def remedy(agent: BaseAgent, batch: Batch) -> str:
    """What to change, by the settings of the agent and the batch that it diverged on."""
    settings, rows = agent.settings, batch.read()
    seen = rows.obs
    if isinstance(agent.normalizer, Unpack):  # bytes of images are no numbers of an observation
        seen = agent.normalizer.numbers(seen)
    paid, far = (
        float(x.double().nan_to_num(0, 0, 0).abs().max()) if x.numel() else 0.0
        for x in (rows.reward, seen)
    )
    learned = settings.reward_scale == "auto" or getattr(settings, "atoms", False)
    if not learned and paid * float(settings.reward_scale) > LARGE:
        fitting = float(f"{max(1.0 / paid, 1e-37):.1g}")
        return f"rewards reach {paid:.3g}, start again with agent.reward_scale={fitting:g}"
    if far > LARGE and not settings.normalise_obs:
        return f"observations reach {far:.3g}, start again with agent.normalise_obs=true"
    return f"start again with a lower agent.lr than {settings.lr:g}"


def leave_evidence(
    run_dir: Path, step: int, agent: BaseAgent, metrics: Mapping[str, Tensor], rank: int = 0
) -> str:
    """Writes `divergence/` into the run directory; returns what to add to the message.

    In it: the arguments of the last update, the agent with its weights before it (nothing of it was
    committed) and its generators after it, the range of every tensor, and a script. Without
    `metrics` it may have been an earlier update. Each rank but 0 has a folder of its own.
    """
    folder = run_dir / (f"{FOLDER}-{rank}" if rank else FOLDER)
    assert isinstance(agent.step, Recorded)
    given = [
        argument.read()._asdict() if isinstance(argument, Batch) else argument
        for argument in agent.step.arguments
    ]
    state = {"given": given, "agent": agent.state_dict(), "spec": vars(agent.spec)}
    values, tensors = split(state)
    named = {**tensors, **{f"/metrics/{name}": value for name, value in metrics.items()}}
    ranges = {"step": step, "tensors": {name: extent(tensor) for name, tensor in named.items()}}
    try:
        own_folder(folder)
        write_bytes(folder / "state.safetensors", save(tensors))
        write_json(folder / "state.json", values)
        write_json(folder / "ranges.json", ranges)
        write_text(folder / "repeat.py", SCRIPT.format(root=str(ROOT)))
    except (OSError, LogpiError) as error:
        return f"; {folder} could not be written, {error}"
    what = "it" if metrics else "the last update before it was seen"
    return f"; python {shown(folder / 'repeat.py')} repeats {what}"


def extent(tensor: Tensor) -> dict[str, Any]:
    """Least and greatest finite number of a tensor, and how many are not finite."""
    numbers = tensor.detach().double().flatten()
    finite = numbers[numbers.isfinite()]
    return {
        "shape": list(tensor.shape),
        "min": float(finite.min()) if len(finite) else None,
        "max": float(finite.max()) if len(finite) else None,
        "not_finite": len(numbers) - len(finite),
    }


def repeat(folder: Path) -> dict[str, float]:
    """The numbers of the update in `divergence/`, from the weights before it, eagerly."""
    config = read_run(folder.parent)
    values = json.loads((folder / "state.json").read_text())
    state = join(values, load_file(folder / "state.safetensors"))
    shapes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in state["spec"].items()
    }
    agent = make_agent(Spec(**shapes), config.agent, partial(stream, config.seed), 1)
    agent.load_state_dict(state["agent"])
    agent.optimizer.diverged.fill_(False)
    given = [Transition(**one) if isinstance(one, dict) else one for one in state["given"]]
    metrics = agent.step(*given)
    return {name: float(value) for name, value in metrics.items() if value.ndim == 0}
