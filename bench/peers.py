"""The log-probabilities of other libraries against 50 digits: `python bench/peers.py`.

Writes report.md; with write=true docs/peers.md, too. Needs the extra `peers`; `make peers` installs
it.
"""

import math
import re
import sys
import time
from dataclasses import dataclass
from functools import partial
from importlib.metadata import distributions, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.bench import machine  # noqa: E402
from bench.peer_densities import PEERS, Peer  # noqa: E402
from bench.peer_errors import (  # noqa: E402
    DENSITY_MEAN,
    LOG_STDS,
    PAIR_MEANS,
    Results,
    measure,
    rounding,
    verdicts,
)
from common.errors import ConfigError  # noqa: E402
from runtime.launch.door import tool  # noqa: E402
from storage import rundir  # noqa: E402
from tools.shared import Keys, key, new_folder, read_keys, table  # noqa: E402

PAGE = ROOT / "docs" / "peers.md"
INSTALL = 'pip install -c constraints.txt ".[dev,peers]"'


USAGE = f"""\
usage: python bench/peers.py [only=PEER,...] [out=FOLDER] [write=true]
Measures every peer, a minute, and writes report.md; with write=true docs/peers.md, too. For
only=cleanrl,rlkit no library is needed.
peers: {", ".join(PEERS)}"""


@dataclass(frozen=True)
class Options(Keys):
    only: str = key(",".join(PEERS))
    out: str = key("")
    write: bool = key(False)

    def check(self) -> None:
        self.require_names("only", [*PEERS])
        whole = not self.write or self.only == Options().only
        self.require(whole, "write", "the page is of all peers", "leave only out")


def missing(peers: dict[str, Peer]) -> list[str]:
    """The packages of these peers that are not installed."""
    named = {peer.package for peer in peers.values() if peer.package}
    return sorted(package for package in named if not [*distributions(name=package)])


def run(arguments: list[str]) -> int:
    """Measures and reports; returns 0."""
    options = read_keys(Options, arguments)[0]
    chosen = {name: PEERS[name] for name in PEERS if name in options.only.split(",")}
    for package in missing(chosen):
        raise ConfigError(f"peers: {package} is not installed; {INSTALL}")
    folder = new_folder(options.out, "runs/peers")
    results, seen = {}, {}
    for name, peer in chosen.items():
        results[name], seen[name] = measure(peer), verdicts(peer)
        print(f"* {sentence(peer, results[name])}")
        print(*(f"    {words}" for words in seen[name]), sep="\n", flush=True)
    page = report(results, seen)
    rundir.write_text(folder / "report.md", page)
    print(f"\n{folder / 'report.md'}")
    if options.write:
        rundir.write_text(PAGE, page)
        print("docs/peers.md")
    return 0


def short(words: str) -> str:
    """'right', 'right to |u| = 7.8', or the verdict in full."""
    if judged := re.search(r"not judged beyond (\|u\| = [\d.]+)", words):
        return f"right to {judged[1]}"
    return "right" if words.startswith("right: ") else words


def sentence(peer: Peer, result: Results) -> str:
    """What holds and what fails, from where on and by how much, in words."""
    first = result["own", next(iter(LOG_STDS))]
    text = f"of its own draws log π {outcome('own', result)}"
    if peer.action == "tanh" and not first.holds:
        text += f", and its gradient by μ at |u| = 20 is {ends(peer, result)[0]} in place of 2"
    if peer.given is not None:
        text += f"; of a given action it {outcome('given', result)}"
        if bound := at_bound(result):
            text += f"; for one rounded to ±1 the worse of value and gradient is {bound}"
    return f"{peer.name}: {text}."


def outcome(case: str, result: Results) -> str:
    """`holds` at the widths where it does, and the errors at the first where it does not."""
    good = [width for width in LOG_STDS if result[case, width].holds]
    if len(good) == len(LOG_STDS):
        return "holds at every σ"
    width = next(width for width in LOG_STDS if width not in good)
    value = result[case, width].value
    if value.start is None:
        text = f"has a gradient that is off by {result[case, width].gradient.text} at {width}"
    else:
        lost = " or not finite" if value.lost else ""
        text = f"is too {'low' if value.worst < 0 else 'high'} by up to {abs(value.worst):.3g} nat"
        text += f"{lost} from |u| = {value.start:g} on at {width}"
    return f"holds at {' and '.join(good)}, {text}" if good else text


def at_bound(result: Results) -> str:
    return next((m.bound for (case, _), m in result.items() if case == "given"), "")


def ends(peer: Peer, result: Results) -> list[str]:
    """Of squashed draws: the slope by the mean at the largest |u|, and the largest action."""
    first = result["own", next(iter(LOG_STDS))]
    slope = f"{first.slope:.3g}".replace("nan", "NaN")
    return [slope, first.largest] if peer.action == "tanh" else ["–", "–"]


def least(peer: Peer) -> str:
    return f"{peer.log_std_min:.3g}" if math.isfinite(peer.log_std_min) else "none"


def cells(peer: Peer, result: Results, case: str) -> list[str]:
    """Value and gradient at every width."""
    line = [peer.name]
    for width, log_std in LOG_STDS.items():
        measured, mark = result[case, width], " †" if log_std < peer.log_std_min else ""
        line += [measured.value.text + mark, measured.gradient.text]
    return line


def origin(peer: Peer) -> str:
    """The version that is installed, or links to where the formula stands."""
    if peer.package:
        return version(peer.package)
    links = [f"[{i}](https://github.com/{path})" for i, path in enumerate(peer.sources, 1)]
    return f"restated from {' '.join(links)}" if links else "this one"


def report(results: dict[str, Results], seen: dict[str, list[str]]) -> str:
    """docs/peers.md with these tables, sentences and numbers in place of its own."""
    rows = [(PEERS[name], result, seen[name]) for name, result in results.items()]
    starts = [  # where a squashed density of its own draws fails with σ of 0.05 or more
        measured.value.start or math.inf
        for p, result, _ in rows
        for (case, width), measured in result.items()
        if case == "own" and LOG_STDS[width] > -5.0 and p.action == "tanh"
    ]
    head = ["peer", *(x for width in LOG_STDS for x in (width, "gradient"))]
    pairs = [f"pairs, N({mean:g}, 1)" for mean in PAIR_MEANS]
    places = {
        r"^\| peer \|.*(?:\n\|.*)*": [
            table(
                ["peer", "version", "log π", "least log σ"],
                [[p.name, origin(p), p.form, least(p)] for p, _, _ in rows],
            ),
            table(
                [*head, "∂/∂μ at 20", "largest action"],
                [[*cells(p, result, "own"), *ends(p, result)] for p, result, _ in rows],
            ),
            table(
                [*head, "at ±1"],
                [
                    [*cells(p, result, "given"), at_bound(result)]
                    for p, result, _ in rows
                    if p.given
                ],
            ),
            table(
                ["peer", *pairs, f"density, N({DENSITY_MEAN:g}, 1)"],
                [[p.name, *map(short, words)] for p, _, words in rows],
            ),
        ],
        r"^\* .*(?:\n\* .*)*": ["\n".join(f"* {sentence(p, result)}" for p, result, _ in rows)],
        r"(?<=Measured on ).*": [
            f"{time.strftime('%Y-%m-%d')}, torch {version('torch')}, {machine()}."
        ],
        r"(?<=errors of squashed draws begin at \|u\| = ).*": [
            f"{min(starts, default=math.inf):g}."
        ],
        r"(?<=^function: ).*": [f"{', '.join(rounding())}."],
    }
    page = PAGE.read_text(encoding="utf-8")
    for pattern, texts in places.items():
        before, *rest = re.split(pattern, page, flags=re.M)
        page = before + "".join(map("".join, zip(texts, rest, strict=True)))
    return page


main = partial(tool, USAGE, run, bare=True)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
