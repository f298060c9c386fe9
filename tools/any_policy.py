"""`python tools/verify.py of=MODULE:NAME`: the audit of a policy from any module."""

import os
import sys
from importlib import import_module
from typing import Any

from common.errors import ConfigError
from configs.compose import parse
from configs.validate import nearest
from storage import provenance, rundir
from tools.gallery.report import HEADER, Check, line, summary
from tools.gallery.settings import AnyPolicy
from tools.shared import new_folder, read_keys


def value(name: str, text: str) -> Any:
    """A number or a list, None where nothing is given."""
    found = parse(f"{name}={text}")[2] if text else None
    numbers = found if isinstance(found, list) else [found]
    if name != "args" and text and not all(isinstance(n, int | float) for n in numbers):
        raise ConfigError(f"{name}: {text} is no number; give one, or a list such as [-1,2]")
    return found


def target(of: str, args: Any) -> Any:
    """What MODULE:NAME is, called where it is a class or where there are arguments.

    Raises:
        ConfigError: it cannot be imported, there is no such name, or the call raises.
    """
    import torch

    module, colon, path = of.partition(":")
    if not (module and colon and path):
        raise ConfigError(f"of: {of} is not MODULE:NAME; e.g. of=torch.distributions:Normal")
    sys.path.append(os.getcwd())
    try:
        found: Any = import_module(module)
    except Exception as error:
        why = f"importing {module} raised {type(error).__name__}: {error}"
        raise ConfigError(f"of: {why}; start where {module} is found") from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise ConfigError(f"of: {module} has no {path}; {nearest(name, dir(found))}")
        found = getattr(found, name)
    if not isinstance(found, type) and args is None:
        return found
    given = args if isinstance(args, list) else [] if args is None else [args]
    try:
        return found(*(torch.tensor(one) if isinstance(one, list) else one for one in given))
    except Exception as error:
        why = f"{path} raised {type(error).__name__}: {error}"
        raise ConfigError(f"args: {why}; give what it is called with, args=[...]") from error


def verify(arguments: list[str]) -> int:
    """Prints the table and the verdict, and writes them with a picture; 0 if all holds, else 1.

    Raises:
        ConfigError: a key is wrong, or what was named cannot be checked.
    """
    options = read_keys(AnyPolicy, arguments)[0]
    bounds = {name: value(name, getattr(options, name)) for name in ("low", "high")}
    policy = target(options.of, value("args", options.args))
    import audit
    from audit.density import CURVES

    try:
        report = audit.check(policy, draws=options.draws, seed=options.seed, **bounds)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    shown = len(report.curves)
    if options.dim and min(options.dim, CURVES) != shown > 0:
        raise ConfigError(f"dim: is {options.dim}, but actions have {shown}; leave dim out")
    checks = [Check("", trial.name, trial.figure, trial.bound) for trial in report.trials]
    print("\n".join(line(cells)[22:] for cells in [HEADER, *(check.cells for check in checks)]))
    folder = new_folder(options.out, "runs/verify")
    rundir.write_text(folder / "report.md", report.markdown())
    about = {"of": options.of, "args": options.args, "seed": options.seed, "draws": options.draws}
    versions = {"versions": provenance.versions(), "revision": provenance.revision()}
    rundir.write_json(folder / "report.json", {**report.as_json(), **about, **versions})
    rundir.write_bytes(folder / "picture.png", report.png())
    print(f"\n{report.verdict}\n{summary(checks)}; {folder / 'report.md'}")
    return int(not report.passed)
