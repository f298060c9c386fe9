"""How often does `audit.check` find each mistake, and how often does it accuse a right density?"""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.commands import Seeds  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from tools.shared import Keys, key, read_keys, table, table_row  # noqa: E402

USAGE = """\
usage: python bench/audit_power.py [seeds=FIRST-LAST] [right=FIRST-LAST] [only=WORD,...] [lanes=1]
Audits each policy of tests/audit/mistakes.py, and right ones, anew for each seed; prints a table,
each row as soon as it is known.
seeds=FIRST-LAST: of the policies with a mistake; 0-19 by default, and seeds=none for none.
right=FIRST-LAST: of the right ones; likewise.
only=WORD,...: mistakes whose names contain one. draws=N: of each audit, 20000 by default.
dimensions=1 or 3: these alone, and choices. pairs=false: without check_pairs.
lanes=N: so many audits at once, each in a process of its own.
Exit code 1 if a mistake is missed more than once in 1,000, or a right density is accused."""
HEAD = ["mistake", "dimensions", "check", "named", "check_pairs", "named", "seconds", "looks like"]
MISSED = 1e-3  # of the audits of a mistake, at most
PAIRLESS = ("summed_over_batch", "broadcast")  # shapes that are no pairs
OTHERS = ("beta", "laplace", "mixture", "modes")  # right densities, of `mistakes.distribution`
CONSTANTS = 1e-4, 1e-8  # other than 1e-6, of policies with any mean and std


@dataclass(frozen=True)
class Options(Keys):
    seeds: str = key("")
    right: str = key("")
    only: str = key("")
    draws: int = key(20_000, ge=1000)
    dimensions: int = key(0, ge=0)
    pairs: bool = key(True)
    lanes: int = key(1, ge=1)

    def check(self) -> None:
        for given in (self.seeds, self.right):
            seeds_of(given)


class Case(NamedTuple):
    """What is audited: a policy of tests/audit/mistakes.py, `mistake` "" for a right one."""

    mistake: str
    size: int  # of the action; 0 for choices
    kind: str  # "box", there in "float32", "by hand" or "anywhere", "tanh", "line", or of OTHERS
    pairs: bool = False  # whether actions and log_pi alone are audited, too
    constant: float = 1e-6  # of the mistake


class Audit(NamedTuple):
    """What one audit found, the mistake that it named, and its seconds."""

    passed: bool
    form: str | None
    seconds: float


def seeds_of(given: str, usual: int = 20) -> range:
    """Those that a key gives; none for "none"."""
    return range(0) if given == "none" else Seeds(seeds=given).chosen(usual)


def cases(words: str) -> Iterator[Case]:
    """The right ones, and each mistake whose name contains one of the words."""
    from audit.forms import FORMS
    from tests.audit.mistakes import ENTROPIES, FORMULAS, SEVERAL

    for kind, size in product(("line", "tanh", "box", "float32"), (1, 3)):
        yield Case("", size, kind, pairs=True)
    yield from (Case("", size, "by hand") for size in (1, 3))
    yield from (Case("", 1, kind) for kind in OTHERS)
    yield Case("", 0, "choices")
    for name, form in FORMS.items():
        if not any(word in name for word in words.split(",")):
            continue
        if form.kind == "discrete":
            yield Case(name, 0, "choices")
            continue
        pairs = name not in PAIRLESS and name not in ENTROPIES
        for size in (3,) if name in SEVERAL else (1, 3):
            yield Case(name, size, "box", pairs)
            if name in FORMULAS and form.free and name != "jacobian_of_scaled":  # not a number
                yield Case(name, size, "float32", pairs)  # in a wide box
                yield from (Case(name, size, "anywhere", False, constant) for constant in CONSTANTS)


def audited(case: Case, pairs: bool, draws: int, seed: int) -> Audit:
    """One audit, of a density or of pairs."""
    import torch

    import audit
    from tests.audit import mistakes

    torch.set_num_threads(1)  # nothing here is large
    if case.kind == "choices":
        given = mistakes.choices(case.mistake, seed)
    elif case.kind in OTHERS:
        given = {"policy": mistakes.distribution(case.kind)}
    else:
        kind = case.kind if case.kind in ("line", "tanh", "by hand") else "box"
        dtype = torch.float32 if case.kind == "float32" else torch.float64
        policy = mistakes.policy(case.mistake, case.size, seed, kind, case.constant, dtype)
        if not case.mistake or case.kind == "anywhere":
            policy = mistakes.anywhere(policy)
        given = {"sample": policy.sample, "log_prob": policy.log_prob, **policy.bounds}
        if case.mistake in mistakes.ENTROPIES:
            given["entropy"] = mistakes.ENTROPIES[case.mistake](policy)
    began = time.perf_counter()
    try:
        if pairs:
            report = audit.check_pairs(*policy.pairs(draws), **policy.bounds, seed=seed)
        else:
            report = audit.check(**given, draws=draws, seed=seed)
        passed, form = report.passed, report.form
        if passed and "its shape is" in report.verdict:
            passed, form = False, "keepdim"  # a remark, not a mistake by itself
    except ValueError as error:  # no verdict is wrong for both
        passed, form = bool(case.mistake), str(error)
    return Audit(passed, form, time.perf_counter() - began)


def measure(arguments: list[str]) -> int:
    """Prints how often each was caught, and rightly named; 1 if a bound is exceeded."""
    given, _ = read_keys(Options, arguments)
    exceeded = False
    print(table(HEAD, []), flush=True)
    with ProcessPoolExecutor(given.lanes, get_context("spawn")) as pool:
        for case in cases(given.only):
            seeds = seeds_of(given.seeds if case.mistake else given.right)
            if not seeds or given.dimensions not in (0, case.size or given.dimensions):
                continue
            cells, seconds = [], []
            for pairs in (False, True)[: 1 + (case.pairs and given.pairs)]:
                run = partial(audited, case, pairs, given.draws)
                audits = [*(pool.map(run, seeds) if given.lanes > 1 else map(run, seeds))]
                caught = [one for one in audits if not one.passed]
                named = sum(one.form == case.mistake for one in caught)
                cells += [f"{len(caught)} of {len(audits)}", f"{named}"]
                seconds += [one.seconds for one in audits]
                wrong = len(audits) - len(caught) if case.mistake else len(caught)
                exceeded |= wrong > (MISSED * len(audits) if case.mistake else 0)
            mean = f"{sum(seconds) / len(seconds):.2f}"
            print(row(case, [*cells, "", ""][:4], mean), flush=True)
    return int(exceeded)


def row(case: Case, cells: list[str], seconds: str) -> str:
    """A row of the table, with where the mistake was made and what it looks like."""
    import torch

    from audit.forms import FORMS

    name, text = f"none, {case.kind}", ""
    if form := FORMS.get(case.mistake):
        how = {"float32": ", float32", "anywhere": f", {case.constant:g}"}
        name = f"[{form.name}]({form.source}){how.get(case.kind, '')}"
        text = form.at(torch.tensor(case.constant)).text if form.free else form.text
    return table_row([name, str(case.size or "choices"), *cells, seconds, text])


main = partial(tool, USAGE, measure, bare=True)

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
