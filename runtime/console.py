"""What the user sees while it runs: warnings, a bar on a terminal, plain lines elsewhere."""

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, SupportsFloat

from tqdm import tqdm

LINES = 20  # plain lines in a whole run
SHOWN = {"return": "rollout/return", "eval": "eval/return_mean", "entropy": "policy/entropy"}


def number(value: SupportsFloat, least: int = 1) -> str:
    """Five significant digits, without an exponent in the usual range: 500.0, -148.37, 9.5e-05.

    So many decimals as `least` stay even where they are 0.
    """
    value = float(value)
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.5g}"  # infinity and NaN, too
    places = 4 - math.floor(math.log10(abs(value))) if value else 0
    whole, _, decimals = f"{value:.{max(places, least)}f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(least, '0')}"


class Progress:
    """Steps done, time left, and the numbers to watch, in one order.

    In the first `learning_starts` steps there is no update: their speed does not count.
    """

    def __init__(self, total_steps: int, first_step: int = 0, learning_starts: int = 0) -> None:
        self.total, self.learning_starts = total_steps, learning_starts
        self.last = (first_step, time.perf_counter())  # line
        self.next_line = first_step
        self.values: dict[str, float] = {}  # the newest of each tag
        self.bar: tqdm[Any] | None = None
        if sys.stdout.isatty():  # a disabled bar would have a thread, too
            self.bar = tqdm(
                total=total_steps,
                initial=first_step,
                unit=" steps",
                dynamic_ncols=True,
                file=sys.stdout,
            )

    def note(self, values: Mapping[str, float]) -> None:
        """Takes the newest values, by tag."""
        self.values.update(values)

    def update(self, step: int) -> None:
        """Shows where the run is."""
        known = {name: self.values[tag] for name, tag in SHOWN.items() if tag in self.values}
        shown = {name: f"{value:.4g}" for name, value in known.items()}
        if self.bar is not None:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(step - self.bar.n)
        elif step >= self.next_line or step >= self.total:
            self.next_line = step + max(1, self.total // LINES)
            past, then = self.last  # steps before the first update take next to no time
            self.last = (step, time.perf_counter())
            values = "  ".join(f"{name} {value:>7}" for name, value in shown.items())
            speed = "not yet learning" if step < self.learning_starts else ""
            if past >= self.learning_starts:
                rate = max(step - past, 1) / max(self.last[1] - then, 1e-9)
                speed = f"{rate:,.0f} steps/s  {max(0, self.total - step) / rate:.0f} s left"
            line = f"step {step:>{len(str(self.total))}}/{self.total}  {values}  {speed}"
            print(line.rstrip(), flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
