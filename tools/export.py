"""A trained policy as one file: `python tools/export.py run=runs/... format=onnx`."""

import hashlib
import sys
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.errors import LogpiError, warn
from runtime.console import number
from runtime.deploy import exported
from runtime.deploy.trained import open_trained
from runtime.launch.door import tool
from storage import provenance, rundir
from storage.files import writing
from tools.shared import Keys, key, read_keys

USAGE = """\
usage: python tools/export.py run=RUN_DIR [format=onnx|torch] [checkpoint=latest] [episodes=100]
                              [seed=12345] [out=FILE] [env.id=ID] [opset=20]
Writes the policy of a run as one file, from observations of the environment to its actions: the
normaliser, the network, squashing and scaling. A certificate beside it, policy.onnx.json, has the
largest difference from the run's own policy, and the return that the file reaches.

  format=onnx        or torch
  checkpoint=latest  or best, or step-<12 digits>
  episodes=100       for the return in the certificate
  seed=12345         of these episodes
  out=FILE           without it, RUN_DIR/policy.onnx or RUN_DIR/policy.pt2
  env.id=ID          the id of the run once more, if it names a module to import (MODULE:NAME)
  opset=20           18 or 19 for an onnxruntime older than 1.17"""
OBSERVATIONS = 10_000  # compared with the run's own policy: half of them met, half random
BATCH = 256  # observations at once
TOLERANCE = 1e-4  # of the width of each component of the action space
SUFFIXES = {kind: suffix for suffix, kind in exported.SUFFIXES.items()}


@dataclass(frozen=True)
class Options(Keys):
    run: str = key("")
    format: Literal["onnx", "torch"] = key("onnx")
    checkpoint: str = key("latest")
    episodes: int = key(100, ge=1)
    seed: int = key(12345, ge=0)
    out: str = key("")
    opset: int | None = key(None, ge=18, le=exported.OPSET)
    env_id: str | None = key(None, name="env.id")

    @property
    def file(self) -> Path:
        return Path(self.out or Path(self.run) / f"policy{SUFFIXES[self.format]}")

    def check(self) -> None:
        self.require(bool(self.run), "run", "is missing", "give a run directory")
        suffix = SUFFIXES[self.format]
        why = f"{self.file} does not end in {suffix}"
        self.require(self.file.suffix == suffix, "out", why, "name it so")
        fits = self.opset is None or self.format == "onnx"
        self.require(fits, "opset", "format=torch has none", "leave it out")


class Recorder:
    """An agent that keeps a uniform sample of its observations, and their range."""

    def __init__(self, agent: Any, read: Any = np.asarray) -> None:
        """`read` is that of the environments."""
        self.agent, self.device, self.met, self.read = agent, agent.device, list[Tensor](), read
        self.count, self.chance = 0, np.random.default_rng(0)
        self.low, self.high = torch.tensor(torch.inf), torch.tensor(-torch.inf)  # then (O,)

    def act(
        self, obs: Tensor, deterministic: bool = True, generator: Any = None
    ) -> tuple[Tensor, Tensor]:
        seen = torch.from_numpy(self.read(obs.numpy()))
        self.low = torch.minimum(self.low, seen.amin(0).float())
        self.high = torch.maximum(self.high, seen.amax(0).float())
        for row in obs:  # algorithm R of Vitter (1985)
            self.count += 1
            place = int(self.chance.integers(self.count))
            if len(self.met) < OBSERVATIONS // 2:
                self.met.append(row.clone())
            elif place < len(self.met):
                self.met[place] = row.clone()
        return self.agent.act(obs, deterministic, generator)


def export(arguments: list[str]) -> int:
    """Writes the file and its certificate; LogpiError if the file is not the policy."""
    given, _ = read_keys(Options, arguments)
    path = given.file
    trained = open_trained(
        given.run, given.checkpoint, episodes=given.episodes, seed=given.seed, env_id=given.env_id
    )
    warn(*trained.warnings)
    with closing(trained.evaluator) as evaluator, writing(path, path):
        if given.out:
            rundir.make_folder(path.parent)
        rundir.require_writable(path.parent, "out", f"give out=FILE{path.suffix}")
        envs = evaluator.envs
        deployed = exported.Deployed(trained.agent, envs.to_env, envs.obs_shape)
        exported.write(deployed, path, given.opset or exported.OPSET)
        file = exported.FromFile(path, envs)
        recorder = Recorder(trained.agent, envs.read)
        evaluator.examine()  # so that both play the same episodes, whatever copies keep
        of_run = evaluator(recorder, trained.step).summary()
        compared, furthest, differing = differences(recorder, file, envs.to_env)
        evaluator.envs.to_env = exported.as_they_are(envs.to_env)  # type: ignore[assignment]
        of_file = evaluator(file, trained.step).summary()
    written = exported.certificate_of(path)
    if differing > compared * TOLERANCE:
        path.unlink()
        written.unlink(missing_ok=True)
        where = f"on {differing:,} of {compared:,} observations"
        raise LogpiError(f"format: the file acts unlike the run {where}, and is removed; report it")
    certificate = {
        "run": str(trained.path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "checkpoint_step": trained.step,
        "env_id": trained.config.env.id,
        "env_kwargs": trained.config.env.kwargs,
        "env_wrappers": trained.config.env.wrappers,
        "obs_shape": list(envs.obs_shape),
        "spaces": envs.spaces,
        "observations": compared,
        "max_difference": furthest,
        "actions_that_differ": differing,
        "episodes": given.episodes,
        "seed": given.seed,
        "versions": provenance.versions("onnx", "onnxruntime"),
    }
    returns = []
    for what, one in (("file", of_file), ("run", of_run)):
        for name in ("return_mean", "return_sem", "episodes_cut"):
            certificate[f"{name}_of_{what}"] = one[name]
        cut = f"; {one['episodes_cut']} cut short" if one["episodes_cut"] else ""
        spread = f"(standard error {number(one['return_sem'])}{cut})"
        returns.append(f"{number(one['return_mean'])} {spread} from the {what}")
    rundir.write_json(written, certificate)
    print(f"{path}: {path.stat().st_size:,} bytes")
    print(f"largest difference over {compared:,} observations: {furthest:.3g}")
    several = "s" * (given.episodes > 1)
    print(f"return over {given.episodes} episode{several}: {', '.join(returns)}")
    print(f"certificate: {written}")
    return 0


def differences(recorder: Recorder, file: Any, to_env: Any) -> tuple[int, float, int]:
    """(observations, largest difference of an action, actions that differ by more than TOLERANCE).

    Of observations that the run's policy met, and of as many random ones in their range.
    """
    met = torch.from_numpy(recorder.read(torch.stack(recorder.met).numpy()))
    half = OBSERVATIONS // 2
    generator = torch.Generator().manual_seed(0)
    chosen = met if len(met) == half else met[torch.randint(len(met), (half,), generator=generator)]
    span = recorder.high - recorder.low
    anywhere = recorder.low + torch.rand(half, met.shape[1], generator=generator) * span
    if masked := recorder.agent.spec.mask:
        anywhere[:, -masked:] = chosen[:, -masked:]
    obs = torch.cat([chosen, anywhere.to(chosen.dtype)])
    gap = np.abs(actions(file, obs).astype(np.float64) - to_env(actions(recorder.agent, obs)))
    space = to_env.space
    width = (space.high - space.low).astype(np.float64) if hasattr(space, "high") else 1.0
    far = (gap > TOLERANCE * width).reshape(len(obs), -1).any(-1)
    return len(obs), float(gap.max()), int(far.sum())


def actions(agent: Any, obs: Tensor) -> np.ndarray:
    """Of observations (B, O), in batches: they may be images."""
    parts = [agent.act(part, deterministic=True)[0] for part in obs.split(BATCH)]
    return torch.cat(parts).numpy()


main = partial(tool, USAGE, export)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
