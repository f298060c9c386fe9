"""Evaluate a trained agent: `python evaluate.py run=runs/... episodes=100`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.console import number
from runtime.launch.door import enter

if TYPE_CHECKING:
    from configs.schema import EvaluateConfig
    from runtime.evaluation import Evaluation, Evaluator


def run(config: "EvaluateConfig") -> int:
    """Plays whole episodes with the agent of a run, or with a policy from a file."""
    return play_run(config) if config.policy is None else play_file(config)


def play_run(config: "EvaluateConfig") -> int:
    from runtime.build import make_device
    from runtime.deploy.film import require_display
    from runtime.deploy.trained import open_trained

    if config.render == "human":
        require_display()
    trained = open_trained(
        str(config.run),
        config.checkpoint,
        episodes=config.episodes,
        seed=config.seed,
        device=make_device(config.device),
        env_id=config.env.id,
        render=config.render,
        max_length=config.max_length,
    )
    for warning in trained.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    filmed = None
    try:
        out = folder(config, trained.path)
        if config.render is None:
            examine(trained.evaluator)
        if config.video:
            from runtime.deploy.film import film

            filmed = film(trained, out, config.seed, config.deterministic)
        evaluation = trained.evaluator(trained.agent, trained.step, config.deterministic)
    finally:
        trained.evaluator.close()
    what = f"{trained.config.agent.name} on {trained.config.env.id}"
    report(
        config,
        evaluation,
        f"{what}, checkpoint of step {trained.step:,}",
        out / "evaluation.json",
        {"checkpoint_step": trained.step},
    )
    if filmed is not None:
        path, seen = filmed
        cut = ", cut short" if seen.cut else ""
        print(f"film of an episode with return {number(seen.returns[0])}{cut}: {path}")
    return 0


def play_file(config: "EvaluateConfig") -> int:
    from common.errors import shown
    from runtime.deploy.exported import certificate_of, open_file

    path = Path(str(config.policy))
    file, evaluator, certificate = open_file(path, config)
    step = certificate.get("checkpoint_step", 0)
    try:
        out = folder(config, path.parent)
        examine(evaluator)
        evaluation = evaluator(file, step)
    finally:
        evaluator.close()
    there = certificate.get("env_id"), certificate.get("env_kwargs")
    if not certificate:
        beside = shown(certificate_of(path))
        print(
            f"warning: policy: whether it was made in the spaces of {config.env.id} is not "
            f"known, {beside} is not there or of another file; export it again, or move both "
            "together",
            file=sys.stderr,
        )
    elif there != (config.env.id, config.env.kwargs):
        print(
            f"warning: policy: was exported for {elsewhere(config, *there)} to play it there",
            file=sys.stderr,
        )
    written = out / f"{path.name}.evaluation.json"
    what = f"{path}, exported at step {step:,}," if certificate else str(path)
    report(config, evaluation, f"{what} on {config.env.id}", written, {"policy": str(path)})
    return 0


def elsewhere(config: "EvaluateConfig", env_id: Any, kwargs: Any) -> str:
    """What a policy was exported for, and what to do with the keys of the command."""
    from configs.resume import assignment, flat

    if env_id != config.env.id:
        return f"env.id={env_id}; give that"
    if not (kwargs and isinstance(kwargs, dict)):
        return "no env.kwargs; leave them out"
    there = dict(flat(kwargs, "env.kwargs."))
    return f"{' '.join(assignment(key, there) for key in there)}; give that"


def folder(config: "EvaluateConfig", own: Path) -> Path:
    """Where the summary goes: `out`, or the folder of the run or file itself."""
    from storage.rundir import make_folder

    return make_folder(config.out) if config.out else own


def examine(evaluator: "Evaluator") -> None:
    """Warns where what is measured depends on what its copies of the environment met before."""
    found = evaluator.examine()
    if found is not None:
        print(f"warning: env {evaluator.envs.env_id}: {found}", file=sys.stderr)


def report(
    config: "EvaluateConfig", evaluation: "Evaluation", what: str, path: Path, more: dict[str, Any]
) -> None:
    """Prints a summary, and writes it down; one that cannot be kept is a warning."""
    from common.errors import StorageFault
    from storage import rundir

    summary = evaluation.summary()
    actions = "deterministic" if config.deterministic else "sampled"
    several = config.episodes > 1
    spread = (
        f", standard error {number(summary['return_sem'])}, "
        f"deviation {number(summary['return_std'])}, "
        f"from {number(summary['return_min'])} to {number(summary['return_max'])}"
    )
    print(
        f"{what}, {config.episodes} episode{'s' * several}, {actions} actions\n"
        f"return {number(summary['return_mean'])}{spread * several}\n"
        f"length {summary['length_mean']:.1f} steps"
        + (f"; {evaluation.cut} cut short" if evaluation.cut else "")
    )
    given = {name: getattr(config, name) for name in ("episodes", "seed", "deterministic")}
    try:
        rundir.write_json(path, {**summary, **given, **more})
    except StorageFault as fault:
        print(f"warning: {fault.problem}; give out=FOLDER to keep the summary", file=sys.stderr)
    else:
        print(f"written to {path}")


if __name__ == "__main__":
    sys.exit(enter("evaluate", run, sys.argv[1:]))
