"""Is every log-probability right? `python tools/verify.py`; --help lists sections and keys.

Prints a row for each section, or with verbose=true for each check; writes pictures, report.md and
report.json. Exits 0 if all checks hold, 1 otherwise. Wrong formulas are run too, and have to be
rejected.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.errors import ConfigError, in_words, warn
from configs.validate import nearest
from runtime.launch.door import tool
from storage import provenance, rundir
from tools.gallery import report, settings
from tools.gallery.report import Check
from tools.shared import new_folder, read_keys, table

STATES = 8  # of a trained policy, at which it is audited
APART = 12  # steps between the moments at which the states are taken
HEAD = ["test", "figure", "bound", "result"]
Part = tuple[str, list[Check], Any]  # its name, its rows, the pixels of its picture


def main(arguments: list[str]) -> int:
    return tool(settings.help_text(), verify, arguments, bare=True)


def verify(arguments: list[str]) -> int:
    """Runs what the arguments ask for; returns 0 if all of it holds, else 1."""
    if any(argument.lstrip("+").startswith(("of=", "pairs=")) for argument in arguments):
        return check_any(arguments)
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
    content = {
        "passed": all(check.passed for check in checks),
        "seed": options.seed,
        "settings": {name: asdict(given) for name, given in chosen.items()},
        "checks": [report.as_json(check) for check in checks],
    }
    words, text = report.explained(" ".join(shown)), report.markdown(checks, chosen)
    seconds = f"{time.perf_counter() - started:.0f} s"
    last = f"{report.summary(checks)}; {seconds}; {folder / 'report.md'}"
    finish(folder, text, content, words, last)
    return int(not content["passed"])


def finish(folder: Path, text: str, content: dict[str, Any], words: list[str], last: str) -> None:
    """Writes report.md and report.json; prints the words explained, and the last line."""
    about = {"versions": provenance.versions(), "revision": provenance.revision()}
    rundir.write_text(folder / "report.md", text)
    rundir.write_json(folder / "report.json", {**content, **about})
    print(*(["", *words] if words else []), "", last, sep="\n")


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


def imported(name: str) -> Any:
    """A module by its name, or by the path of its file."""
    path = Path(name)
    if path.suffix != ".py":
        sys.path.append(os.getcwd())
        return import_module(name)
    sys.path.append(str(path.resolve().parent))  # for what it imports itself
    spec: Any = spec_from_file_location(f"of_{path.stem}", path)  # no name of this checkout
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def target(of: str, args: Any) -> Any:
    """The object MODULE:NAME, called if it is a class or if there are arguments.

    Raises:
        ConfigError: it cannot be imported, there is no such name, or the call raises.
    """
    import torch

    module, colon, path = of.partition(":")
    if not (module and colon and path):
        why = f"{of or 'nothing'} is not MODULE:NAME"
        raise ConfigError(f"of: {why}; e.g. of=torch.distributions:Normal")
    try:
        found: Any = imported(module)
    except (Exception, SystemExit) as error:
        why = f"importing {module} raised {in_words(error)}"
        remedy = "mend what it raised"
        if isinstance(error, SystemExit):
            remedy = 'put what ends it under if __name__ == "__main__"'
        elif isinstance(error, ImportError):
            remedy = "start where it is, or give FILE.py:NAME; names of this checkout are taken"
        raise ConfigError(f"of: {why}; {remedy}") from error
    for name in path.split("."):
        if not hasattr(found, name):
            known = [one for one in dir(found) if callable(getattr(found, one, None))]
            remedy = nearest(name, known, f"it has {', '.join(known[:8])}")
            raise ConfigError(f"of: {module} has no {path}; {remedy}")
        found = getattr(found, name)
    if not isinstance(found, type) and args is None:
        return found
    given = args if isinstance(args, list) else [] if args is None else [args]
    try:
        return found(*(torch.tensor(x).float() if isinstance(x, list) else x for x in given))
    except (Exception, SystemExit) as error:
        why = f"{path} raised {in_words(error)}"
        raise ConfigError(f"args: {why}; give what it is called with, args=[...]") from error


def stored(path: str) -> list[Any]:
    """[actions, log_pi] of an .npz file; raises ConfigError."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[name] for name in ("actions", "log_pi")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{path} was not read ({' '.join(str(error).split())})"
        remedy = "np.savez(FILE, actions=actions, log_pi=log_pi) writes such a file"
        raise ConfigError(f"pairs: {why}; {remedy}") from error


def check_any(arguments: list[str]) -> int:
    """`of` and `pairs`: the audit of a policy from any module; 0 if all holds, else 1.

    Raises:
        ConfigError: a key is wrong, or what was named cannot be checked.
    """
    options = read_keys(settings.AnyPolicy, arguments)[0]
    if options.of and options.pairs:
        raise ConfigError("pairs: of= is given, too; give one of the two")
    if options.pairs and options.args is not None:
        raise ConfigError("args: is what of= is called with; leave it out")
    bounds = {"low": options.low, "high": options.high}
    given: Any = stored(options.pairs) if options.pairs else None
    policy = None if given else target(options.of, options.args)
    import audit
    from audit.density import CURVES

    try:
        if isinstance(policy, tuple) and not callable(policy[0]):
            given = policy
        if given:
            found = audit.check_pairs(*given, seed=options.seed, **bounds)
        else:
            found = audit.check(policy, draws=options.draws, seed=options.seed, **bounds)
    except ValueError as error:
        name, _, why = str(error).partition(": ")
        if name != "policy":
            raise ConfigError(str(error)) from error
        why, _, remedy = why.rpartition("; ")
        if " draws " not in why:  # the remedy names arguments that there are none of here
            what = "a distribution, or what returns one, or pairs of actions and log_pi"
            remedy = f"name {what}, when called with args=[...]"
        raise ConfigError(f"of: {options.of}: {why}; {remedy}") from error
    shown = len(found.curves)
    if options.dim and min(options.dim, CURVES) != shown > 0:
        raise ConfigError(f"dim: is {options.dim}, but actions have {shown}; leave dim out")
    folder = new_folder(options.out, "runs/verify")
    rows = [
        [name.replace("¦", "|"), f"{float(figure) + 0.0:.3g}", *more]  # 0 for -0
        for name, figure, *more in found.rows()
    ]
    words = report.explained(" ".join(name for name, *_ in rows))
    text = [f"**{found.verdict}**", table(HEAD, rows), "\n".join(f"* {word}" for word in words)]
    names = ("of", "args", "pairs", "seed", *(() if given else ("draws",)))
    content = {**found.as_json(), **{name: getattr(options, name) for name in names}}
    rundir.write_bytes(folder / "picture.png", found.png())
    for name, figure, bound, result in [HEAD, *rows]:
        print(f"{name:<64}  {figure:>9}  {bound:>10}  {result}")
    last = f"{found.verdict}\n{folder / 'report.md'}"
    finish(folder, "\n\n".join([*text, "![picture](picture.png)\n"]), content, words, last)
    return int(not found.passed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
