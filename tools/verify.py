"""Is every log-probability right? `python tools/verify.py`; --help lists sections and keys.

Prints a row for each section, or with verbose=true for each check; writes pictures, report.md and
report.json. Exits 0 if all checks hold, 1 otherwise. Wrong formulas are run too, and have to be
rejected.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.errors import warn
from runtime.launch.door import tool
from storage import provenance, rundir
from tools import any_policy
from tools.gallery import report, settings
from tools.gallery.report import Check
from tools.shared import new_folder

STATES = 8  # of a trained policy, at which it is audited
APART = 12  # steps between the moments at which the states are taken
Part = tuple[str, list[Check], Any]  # its name, its rows, the pixels of its picture


def main(arguments: list[str]) -> int:
    return tool(settings.help_text(), verify, arguments, bare=True)


def verify(arguments: list[str]) -> int:
    """Runs what the arguments ask for; returns 0 if all of it holds, else 1."""
    if any(argument.lstrip("+").startswith(("of=", "pairs=")) for argument in arguments):
        return any_policy.verify(arguments)
    options, chosen = settings.parse(arguments)
    import torch

    from audit.picture import png
    from tools.gallery.pictures import GALLERY

    torch.set_num_threads(1)  # nothing here is large
    chosen = {} if options.run else chosen
    sections = [GALLERY[name][0](name, given) for name, given in chosen.items()]
    if options.false_alarms:
        return false_alarms(options.false_alarms, sections)
    started, checks, shown = time.perf_counter(), list[Check](), list[str]()
    parts: Iterable[Part] = [audit_run(options)] if options.run else gallery(sections, options.seed)
    folder = new_folder(options.out, "runs/verify")
    for name, rows, image in parts:
        new = report.lines(rows, options.verbose, controls=not options.run)
        print(*new[len(shown) > 0 :], sep="\n", flush=True)  # the head once
        shown += new
        checks += rows
        rundir.write_bytes(folder / f"{name}.png", png(image))
    rundir.write_text(folder / "report.md", report.markdown(checks, chosen))
    written = {
        "passed": all(check.passed for check in checks),
        "seed": options.seed,
        "settings": {name: asdict(given) for name, given in chosen.items()},
        "checks": [report.as_json(check) for check in checks],
        "versions": provenance.versions(),
        "revision": provenance.revision(),
    }
    rundir.write_json(folder / "report.json", written)
    words = report.explained(" ".join(shown))
    print(*(["", *words] if words else []), "", sep="\n")
    seconds = f"{time.perf_counter() - started:.0f} s"
    print(f"{report.summary(checks)}; {seconds}; {folder / 'report.md'}")
    return int(not written["passed"])


def gallery(sections: list[Any], seed: int) -> Iterator[Part]:
    """Each section, and its wrong formulas at the usual settings."""
    from tools.gallery.pictures import GALLERY, pixels

    for section in sections:
        usual = type(section)(section.name, settings.SECTIONS[section.name]())
        rows = [*section.own(seed), *usual.controls(seed)]
        yield section.name, rows, pixels(GALLERY[section.name][1](section, seed))


def audit_run(options: settings.Options) -> Part:
    """The newest valid checkpoint of a run (or `best`, or a name).

    Raises:
        ConfigError: `run` is no run directory, or its environment's module was not named.
        StorageFault: no checkpoint in it is valid.
    """
    import torch

    from audit.picture import picture
    from common.seeding import derive
    from runtime.audits import at_states
    from runtime.deploy.trained import open_trained

    seeds = [derive(options.seed, name) for name in ("audit", "audit-episodes")]
    trained = open_trained(
        options.run,
        options.checkpoint,
        episodes=STATES,
        seed=seeds[1],
        env_id=options.env_id or None,
    )
    warn(*trained.warnings)
    generator = torch.Generator().manual_seed(seeds[0])
    agent, envs = trained.agent, trained.evaluator.envs
    try:
        met = []
        for index in range(STATES):
            for _ in range(APART):
                envs.step(*agent.act(envs.obs, generator=generator))
            met.append(envs.obs[index])
    finally:
        trained.evaluator.close()
    findings = at_states(agent, torch.stack(met), generator)
    rows = [
        Check(f"step {trained.step}, state {index}", trial.name, trial.figure, trial.bound)
        for index, finding in enumerate(findings)
        for trial in finding.trials
    ]
    return "run", rows, picture(findings[:4])


def false_alarms(seeds: int, sections: list[Any]) -> int:
    """Draws the whole gallery anew for seeds 1, 2, ...; right code should never fail. 0 if so."""
    failures, least = 0, dict[tuple[str, str], float]()
    for seed in range(1, seeds + 1):
        rows = [row for section in sections for row in section.drawn(seed)]
        failures += not all(row.passed for row in rows)
        for row in rows:
            key = row.section, row.name
            least[key] = min(row.figure, least.get(key, 1.0))
    for (section, name), p_value in least.items():
        print(f"{section:<20}  smallest {p_value:<8.2g}  {name}")
    print(f"\n{len(least)} tests of chance; the gallery failed on {failures} of {seeds} seeds")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
