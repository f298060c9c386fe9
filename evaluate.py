"""Evaluate a trained agent: `python evaluate.py run=runs/... episodes=100`."""

import re
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if (ROOT := str(Path(__file__).resolve().parent)) not in sys.path:  # with PYTHONSAFEPATH it is not
    sys.path.insert(0, ROOT)

from common.errors import StorageFault, shown, warn
from configs.files import flat
from configs.resume import assignment
from configs.schema import EvaluateConfig
from runtime.console import number
from runtime.launch.door import enter

if TYPE_CHECKING:
    from runtime.evaluation import Evaluation


def run(config: EvaluateConfig) -> int:
    """Plays whole episodes with the agent of a run, or with a policy from a file."""
    from runtime.build import torch_as_found

    with torch_as_found():
        return play(config)


def play(config: EvaluateConfig) -> int:
    from runtime.deploy.film import film, require_display
    from storage.rundir import make_folder

    agent: Any
    more: dict[str, Any]
    if config.render == "human":
        require_display()
    if config.policy is None:
        from runtime.build import make_device
        from runtime.deploy.trained import open_trained

        trained = open_trained(
            str(config.run),
            config.checkpoint,
            episodes=config.episodes,
            seed=config.seed,
            device=make_device(config.device),
            env_id=config.env.id,
            render=config.render,
            max_length=config.max_length,
            kwargs=config.env.kwargs,
        )
        warn(*trained.warnings)
        agent, evaluator, step = trained.agent, trained.evaluator, trained.step
        changed = "".join(f" env.kwargs.{key}={value}" for key, value in trained.changed.items())
        mark = re.sub(r"[^\w.-]+", "-", changed.replace("env.kwargs.", ""))[:80]
        path, name = trained.path / f"evaluation{mark}.json", f"step-{step:012d}{mark}"
        played = f"{trained.config.agent.name} on {trained.config.env.id}"
        world = f", changed to{changed}" if changed else ""
        what = f"{played}{world}, checkpoint of step {step:,}"
        more, warnings = {"checkpoint_step": step}, []
        more |= {"changed": trained.changed} if changed else {}
        in_run = not changed and not config.out
    else:
        from runtime.deploy.exported import open_file

        file = Path(config.policy)
        name, in_run = file.name, False
        agent, evaluator, certificate = open_file(file, config)
        step = certificate.get("checkpoint_step", 0)
        path = file.with_name(f"{file.name}.evaluation.json")
        exported = f", exported at step {step:,}," if certificate else ""
        what = f"{file}{exported} on {config.env.id}"
        more, warnings = {"policy": str(file)}, foreign(config, certificate)
    with closing(evaluator):
        if config.out:
            path = make_folder(config.out) / path.name
        if config.render is None and (found := evaluator.examine()):
            warn(f"env {evaluator.envs.env_id}: {found}")
        if config.video:
            place = (path.parent, f"{name}-s{config.seed}", config.deterministic)
            filmed, seen = film(agent, evaluator, step, *place, in_run)
        evaluation = evaluator(agent, step, config.deterministic)
    warn(*warnings)
    report(config, evaluation, what, path, more)
    if config.video:
        cut = ", cut short" if seen.cut else ""
        print(f"film of an episode with return {number(seen.returns[0])}{cut}: {filmed}")
    return 0


def foreign(config: EvaluateConfig, certificate: dict[str, Any]) -> list[str]:
    """A warning where a file is not known to be, or is not, of the environment it is played in."""
    from runtime.deploy.exported import certificate_of

    if not certificate:
        beside = shown(certificate_of(Path(str(config.policy))))
        why = f"whether it was made in the spaces of {config.env.id} is not known, {beside} is not"
        return [f"policy: {why} there or of another file; export it again, or move both together"]
    there = {name: certificate.get(f"env_{name}") for name in ("id", "kwargs", "wrappers")}
    there["wrappers"] = there["wrappers"] or []  # there were none before there was the key
    if there == asdict(config.env):
        return []
    there = dict(flat({name: value or None for name, value in there.items()}, "env."))
    keys = " ".join(assignment(key, there) for key in there if there[key] is not None)
    return [f"policy: was exported for {keys}; give that alone to play it there"]


def report(
    config: EvaluateConfig, evaluation: "Evaluation", what: str, path: Path, more: dict[str, Any]
) -> None:
    """Prints a summary, and writes it down; one that cannot be kept is a warning."""
    from storage import rundir

    summary = evaluation.summary()
    actions = "deterministic" if config.deterministic else "sampled"
    several = config.episodes > 1
    mean, error, deviation, low, high = (
        number(summary[f"return_{name}"]) for name in ("mean", "sem", "std", "min", "max")
    )
    spread = f", standard error {error}, deviation {deviation}, from {low} to {high}"
    cut = f"; {evaluation.cut} cut short" if evaluation.cut else ""
    print(f"{what}, {config.episodes} episode{'s' * several}, {actions} actions")
    print(f"return {mean}{spread * several}")
    print(f"length {summary['length_mean']:.1f} steps{cut}")
    given = {name: getattr(config, name) for name in ("episodes", "seed", "deterministic")}
    try:
        rundir.write_json(path, {**summary, **given, **more})
    except StorageFault as fault:
        warn(f"{fault.problem}; give out=FOLDER to keep the summary")
    else:
        print(f"written to {path}")


if __name__ == "__main__":
    sys.exit(enter("evaluate", run, sys.argv[1:]))
