"""A trained policy as one file: `python tools/export.py run=runs/... format=onnx`.

Normaliser, network, squashing and scaling in one: observations of the environment in, its actions
out, for any number at once. A certificate beside it says how far it is from the run's own policy,
and what return the file itself reaches.
"""

import hashlib
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common.errors import ConfigError, StorageFault, remedy  # noqa: E402
from configs.compose import parse  # noqa: E402
from configs.validate import unknown_key  # noqa: E402
from runtime.console import number  # noqa: E402
from runtime.launch.door import tool  # noqa: E402

USAGE = """\
usage: python tools/export.py run=RUN_DIR [format=onnx|torch] [checkpoint=latest] [episodes=100]
                              [seed=12345] [out=FILE] [env.id=ID]
writes RUN_DIR/policy.onnx (or policy.pt2) and a certificate, policy.onnx.json, beside it;
env.id repeats the id of a run whose environment a module registers"""
DEFAULTS = {"format": "onnx", "checkpoint": "latest", "episodes": 100, "seed": 12345}
OBSERVATIONS = 10_000  # held against the run's own policy, half of them met, half random
BATCH = 256  # of them at once
TOLERANCE = 1e-4  # of the width of each component of the action space


class Recorder:
    """Acts like an agent, and keeps observations that it met: each is as likely as any other."""

    def __init__(self, agent: Any, read: Any = np.asarray) -> None:
        self.agent, self.device, self.met = agent, agent.device, list[Tensor]()
        self.read = read  # of its `Envs`
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


def main(arguments: list[str]) -> int:
    """Exports; returns the exit code."""
    return tool(USAGE, export, arguments)


def export(arguments: list[str]) -> int:
    """Writes the file and its certificate; returns 1 where the file is not the policy."""
    from runtime.deploy.exported import (
        SUFFIXES,
        Deployed,
        FromFile,
        as_they_are,
        certificate_of,
        write,
    )
    from runtime.deploy.trained import open_trained
    from storage import provenance, rundir

    given: dict[str, Any] = {**DEFAULTS, **{n: v for n, _, v in map(parse, arguments)}}
    for name in given:
        if name not in (known := [*DEFAULTS, "run", "out", "env.id", "debug"]):
            raise ConfigError(unknown_key(name, known))
    suffix = next((s for s, kind in SUFFIXES.items() if kind == given["format"]), None)
    if suffix is None:
        raise ConfigError(f"format: {given['format']} is not one of onnx, torch; choose one")
    if "run" not in given or not isinstance(given["episodes"], int) or given["episodes"] < 1:
        raise ConfigError("run: give run=RUN_DIR, and episodes=N from 1 on")
    if not isinstance(given["seed"], int) or given["seed"] < 0:
        raise ConfigError(f"seed: must be a number from 0 on, got {given['seed']}; correct it")
    path = Path(given.get("out") or Path(str(given["run"])) / f"policy{suffix}")
    if path.suffix != suffix:
        raise ConfigError(f"out: {path} does not end in {suffix}; name it so")
    trained = open_trained(
        str(given["run"]),
        str(given["checkpoint"]),
        episodes=given["episodes"],
        seed=given["seed"],
        env_id=given.get("env.id"),
    )
    for warning in trained.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    envs = trained.evaluator.envs
    try:
        if given.get("out"):
            rundir.make_folder(path.parent)
        rundir.require_writable(path.parent, "out", f"give out=FILE{suffix}")
        write(Deployed(trained.agent, envs.to_env, envs.obs_shape), path)
        file = FromFile(path, envs.obs_shape, envs.to_env, envs.read)
        recorder = Recorder(trained.agent, envs.read)
        trained.evaluator.examine()  # both play from the beginning, whatever copies keep
        own = trained.evaluator(recorder, trained.step)
        compared, furthest, differing = differences(recorder, file, envs.to_env)
        trained.evaluator.envs.to_env = as_they_are(envs.to_env)  # type: ignore[assignment]
        from_file = trained.evaluator(file, trained.step)
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)  # half of it
        remedies = f"{remedy(error)}, or give out=FILE{suffix}"
        raise StorageFault(
            f"out: {path} cannot be written, {error.strerror}; {remedies}"
        ) from error
    finally:
        trained.evaluator.close()
    if differing > compared * TOLERANCE:
        for written in (path, certificate_of(path)):
            written.unlink(missing_ok=True)
        where = f"on {differing:,} of {compared:,} observations"
        why = f"the file does not act as the run does, {where}, and not kept"
        print(f"error: format: {why}; report it", file=sys.stderr)
        return 1
    of_run, of_file = own.summary(), from_file.summary()
    certificate = {
        "run": str(trained.path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "checkpoint_step": trained.step,
        "env_id": trained.config.env.id,
        "env_kwargs": trained.config.env.kwargs,
        "obs_shape": list(envs.obs_shape),
        "spaces": envs.spaces,
        "observations": compared,
        "max_difference": furthest,
        "actions_that_differ": differing,
        "episodes": given["episodes"],
        "seed": given["seed"],
        "return_mean_of_run": of_run["return_mean"],
        "return_mean_of_file": of_file["return_mean"],
        "return_sem_of_run": of_run["return_sem"],
        "return_sem_of_file": of_file["return_sem"],
        "episodes_cut_of_run": of_run["episodes_cut"],
        "episodes_cut_of_file": of_file["episodes_cut"],
        "versions": provenance.versions("onnx", "onnxruntime"),
    }
    rundir.write_json(certificate_of(path), certificate)
    cut = "episodes_cut"
    returns = ", ".join(
        f"{number(one['return_mean'])} (standard error {number(one['return_sem'])}"
        f"{f'; {one[cut]} cut short' if one[cut] else ''}) from the {what}"
        for what, one in (("file", of_file), ("run", of_run))
    )
    print(f"{path}: {path.stat().st_size:,} bytes")
    print(f"largest difference over {compared:,} observations: {furthest:.3g}")
    print(f"return over {given['episodes']} episodes: {returns}")
    print(f"certificate: {certificate_of(path)}")
    return 0


def differences(recorder: Recorder, file: Any, to_env: Any) -> tuple[int, float, int]:
    """(observations, largest difference of an action, how many actions differ by more than that).

    Of the observations that the run's policy met, and of as many random ones in their range.
    """
    met = torch.from_numpy(recorder.read(torch.stack(recorder.met).numpy()))
    generator = torch.Generator().manual_seed(0)
    half = OBSERVATIONS // 2
    chosen = met if len(met) == half else met[torch.randint(len(met), (half,), generator=generator)]
    span = recorder.high - recorder.low
    anywhere = recorder.low + torch.rand(half, met.shape[1], generator=generator) * span
    obs = torch.cat([chosen, anywhere.to(chosen.dtype)])
    wanted = to_env(actions(recorder.agent, obs))
    found = actions(file, obs)
    gap = np.abs(found.astype(np.float64) - wanted)
    space = to_env.space
    width = (space.high - space.low).astype(np.float64) if hasattr(space, "high") else 1.0
    far = (gap > TOLERANCE * width).reshape(len(obs), -1).any(-1)
    return len(obs), float(gap.max()), int(far.sum())


def actions(agent: Any, obs: Tensor) -> np.ndarray:
    """Of observations (B, O), a few at a time: they may be images."""
    parts = [agent.act(part, deterministic=True)[0] for part in obs.split(BATCH)]
    return torch.cat(parts).numpy()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
