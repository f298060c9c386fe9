"""`python tools/verify.py of=MODULE:NAME`: the audit of a policy from any module."""

import os
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from common.errors import ConfigError, in_words
from configs.validate import nearest
from storage import provenance, rundir
from tools.gallery.report import explained
from tools.gallery.settings import AnyPolicy
from tools.shared import new_folder, read_keys, table

HEAD = ["test", "figure", "bound", "result"]


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
        raise ConfigError(
            f"of: {of or 'nothing'} is not MODULE:NAME; e.g. of=torch.distributions:Normal"
        )
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


def verify(arguments: list[str]) -> int:
    """Prints the table and the verdict, and writes them with a picture; 0 if all holds, else 1.

    Raises:
        ConfigError: a key is wrong, or what was named cannot be checked.
    """
    options = read_keys(AnyPolicy, arguments)[0]
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
            report = audit.check_pairs(*given, seed=options.seed, **bounds)
        else:
            report = audit.check(policy, draws=options.draws, seed=options.seed, **bounds)
    except ValueError as error:
        name, _, why = str(error).partition(": ")
        if name != "policy":
            raise ConfigError(str(error)) from error
        why, _, remedy = why.rpartition("; ")
        if " draws " not in why:  # the remedy names arguments that there are none of here
            remedy = (
                "name a distribution, or what returns one, or pairs of actions and log_pi, when "
                "called with args=[...]"
            )
        raise ConfigError(f"of: {options.of}: {why}; {remedy}") from error
    shown = len(report.curves)
    if options.dim and min(options.dim, CURVES) != shown > 0:
        raise ConfigError(f"dim: is {options.dim}, but actions have {shown}; leave dim out")
    folder = new_folder(options.out, "runs/verify")
    rows = [
        [name.replace("¦", "|"), f"{float(figure) + 0.0:.3g}", *more]  # 0 for -0
        for name, figure, *more in report.rows()
    ]
    words = explained(" ".join(name for name, *_ in rows))
    text = [f"**{report.verdict}**", table(HEAD, rows), "\n".join(f"* {word}" for word in words)]
    rundir.write_text(folder / "report.md", "\n\n".join([*text, "![picture](picture.png)\n"]))
    names = ("of", "args", "pairs", "seed", *(() if given else ("draws",)))
    about = {name: getattr(options, name) for name in names}
    versions = {"versions": provenance.versions(), "revision": provenance.revision()}
    rundir.write_json(folder / "report.json", {**report.as_json(), **about, **versions})
    rundir.write_bytes(folder / "picture.png", report.png())
    for name, figure, bound, result in [HEAD, *rows]:
        print(f"{name:<64}  {figure:>9}  {bound:>10}  {result}")
    print(*(["", *words] if words else []), "", report.verdict, folder / "report.md", sep="\n")
    return int(not report.passed)
