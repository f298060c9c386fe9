"""How often does `audit.check` find each mistake, and how often does it accuse a right density?"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.commands import Seeds  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from tools.shared import key, read_keys, table  # noqa: E402

USAGE = """\
usage: python bench/audit_power.py [seeds=FIRST-LAST] [right=FIRST-LAST] [only=WORDS] [out=FOLDER]
Audits each policy of tests/audit/mistakes.py, and right ones, anew for each seed; prints a table.
seeds=FIRST-LAST: of the policies with a mistake; 0-19 by default, and seeds=none for none.
right=FIRST-LAST: of the right ones; likewise.
only=WORDS: mistakes whose names contain them. draws=N: of each audit, 20000 by default.
dimensions=1 or 3: these alone, and choices. pairs=false: without check_pairs.
out=FOLDER: where each audit is a line, runs/audit_power by default. Audits found there are not
repeated, so a run can be continued, and several can share the work by their seeds; after a change
of audit/ give another folder.
Exit code 1 if a mistake is missed more than once in 1,000, or a right density is accused."""
HEAD = ["mistake", "dimensions", "check", "named", "check_pairs", "named", "seconds", "looks like"]
MISSED = 1e-3  # of the audits of a mistake, at most
PAIRLESS = ("summed_over_batch", "broadcast")  # shapes that are no pairs
OTHERS = ("beta", "laplace", "mixture", "modes")  # right densities, of `mistakes.distribution`
CONSTANTS = 1e-4, 1e-8  # other than 1e-6, of policies with any mean and std


@dataclass(frozen=True)
class Options(Seeds):
    right: str = key("")
    only: str = key("")
    draws: int = key(20_000, ge=1000)
    dimensions: int = key(0, ge=0)
    pairs: bool = key(True)

    def check(self) -> None:
        for given in (self.seeds, self.right):
            seeds_of(given)


@dataclass(frozen=True)
class Case:
    """What is audited: a policy of tests/audit/mistakes.py, `mistake` "" for a right one."""

    mistake: str
    size: int  # of the action; 0 for choices
    kind: (
        str  # "box", there in "float32", "by hand" or "anywhere", "tanh", "line", "choices", OTHERS
    )
    pairs: bool  # whether actions and log_pi are all that is given
    constant: float = 1e-6  # of the mistake

    @property
    def label(self) -> str:
        how = "check_pairs" if self.pairs else "check"
        constant = f" {self.constant:g}" if self.constant != 1e-6 else ""
        return f"{self.mistake or 'right'}{constant} {self.size} {self.kind} {how}"


def seeds_of(given: str, usual: int = 20) -> range:
    """Those that a key gives; none for "none"."""
    return range(0) if given == "none" else Seeds(seeds=given).chosen(usual)


def cases(words: str) -> Iterator[Case]:
    from audit.forms import FORMS
    from tests.audit.mistakes import ENTROPIES, FORMULAS, SEVERAL

    for kind, size, pairs in product(("line", "tanh", "box", "float32"), (1, 3), (False, True)):
        yield Case("", size, kind, pairs)
    yield from (Case("", size, "by hand", False) for size in (1, 3))
    for kind in OTHERS:
        yield Case("", 1, kind, False)
    yield Case("", 0, "choices", False)
    for name in [*FORMULAS, *ENTROPIES]:
        alone = name in PAIRLESS or name in ENTROPIES
        sizes = (3,) if name in SEVERAL else (1, 3)
        for size, pairs in product(sizes if words in name else (), (False, True)[: 2 - alone]):
            yield Case(name, size, "box", pairs)
            if FORMS[name].free and name != "jacobian_of_scaled":  # not a number in a wide box
                yield Case(name, size, "float32", pairs)
                for constant in () if pairs else CONSTANTS:
                    yield Case(name, size, "anywhere", pairs, constant)
    for name, form in FORMS.items():
        if form.kind == "discrete" and words in name:
            yield Case(name, 0, "choices", False)


def audited(case: Case, seed: int, draws: int) -> dict[str, Any]:
    """One audit: whether it passed, the mistake it named, and its seconds."""
    import torch

    import audit
    from tests.audit import mistakes

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
        if case.pairs:
            report = audit.check_pairs(*policy.pairs(draws), **policy.bounds, seed=seed)
        else:
            report = audit.check(**given, draws=draws, seed=seed)
        passed, form = report.passed, report.form
        if passed and "its shape is" in report.verdict:
            passed, form = False, "keepdim"  # a remark, not a mistake by itself
    except ValueError as error:  # no verdict is wrong for both
        passed, form = bool(case.mistake), str(error)
    return {"passed": passed, "form": form, "seconds": round(time.perf_counter() - began, 3)}


def read(folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """The audits made so far: label -> seed -> what was found."""
    found: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for path in sorted(folder.glob("*.jsonl")):
        for text in path.read_text(encoding="utf-8").splitlines():
            if text.endswith("}"):  # the last line of a run that was killed may not
                line = json.loads(text)
                found[line.pop("case")][line.pop("seed")] = line
    return found


def measure(arguments: list[str]) -> int:
    """Audits what the folder lacks and prints a table of all it has; 1 if a bound is exceeded."""
    import torch

    given, _ = read_keys(Options, arguments)
    torch.set_num_threads(1)  # nothing here is large
    folder = Path(given.out or "runs/audit_power")
    folder.mkdir(parents=True, exist_ok=True)
    done = read(folder)
    chosen = [
        case
        for case in cases(given.only)
        if case.pairs <= given.pairs and given.dimensions in (0, case.size or given.dimensions)
    ]
    name = f"{given.seeds or 'few'}_{given.right or 'few'}_{given.only or 'all'}.jsonl"
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write("\n")  # after a line that may be cut
        for case in chosen:
            for seed in seeds_of(given.seeds if case.mistake else given.right):
                if seed not in done[case.label]:
                    line = {"case": case.label, "seed": seed}
                    file.write(json.dumps(line | audited(case, seed, given.draws)) + "\n")
                    file.flush()
    return show(chosen, read(folder))


def show(chosen: list[Case], found: dict[str, dict[int, dict[str, Any]]]) -> int:
    """Prints how often each was caught, and rightly named; 1 if a bound is exceeded."""
    import torch

    from audit.forms import FORMS

    rows, exceeded = [], False
    for case in chosen:
        lines = [found[replace(case, pairs=pairs).label].values() for pairs in (False, True)]
        if case.pairs or not any(lines):
            continue
        cells, seconds = [], []
        for audits in lines:
            caught = [line for line in audits if not line["passed"]]
            named = sum(line["form"] == case.mistake for line in caught)
            cells += [f"{len(caught)} of {len(audits)}", f"{named}"] if audits else ["", ""]
            seconds += [line["seconds"] for line in audits]
            wrong = len(audits) - len(caught) if case.mistake else len(caught)
            exceeded |= wrong > (MISSED * len(audits) if case.mistake else 0)
        size = str(case.size or "choices")
        mean = f"{sum(seconds) / len(seconds):.2f}"
        name, text = f"none, {case.kind}", ""
        if form := FORMS.get(case.mistake):
            how = {"float32": ", float32", "anywhere": f", {case.constant:g}"}
            name = f"[{form.name}]({form.source}){how.get(case.kind, '')}"
            text = form.at(torch.tensor(case.constant)).text if form.free else form.text
        rows.append([name, size, *cells, mean, text])
    print(table(HEAD, rows))
    return int(exceeded)


def main(arguments: list[str]) -> int:
    return tool(USAGE, measure, arguments, bare=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
