"""What the user sees while it runs: a bar on a terminal, plain lines elsewhere."""

import math
import sys
import time
from collections.abc import Mapping
from typing import SupportsFloat

from tqdm import tqdm

LINES = 20  # plain lines in a whole run
SHOWN = {"return": "rollout/return", "eval": "eval/return_mean", "entropy": "policy/entropy"}


def number(value: SupportsFloat, least: int = 1) -> str:
    """Five significant digits, without an exponent in the usual range: 500.0, -148.37, 9.5e-05.

    Args:
        least: decimals that stay even where they are 0.
    """
    value = float(value)
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.5g}"  # infinity and NaN, too
    places = 4 - math.floor(math.log10(abs(value))) if value else 0
    whole, _, decimals = f"{value:.{max(places, least)}f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(least, '0')}"


class Progress:
    """Steps done, time left, and the numbers to watch, in one order.

    Args:
        learning_starts: steps without an update, whose speed tells nothing of the time left.
    """

    def __init__(self, total_steps: int, first_step: int = 0, learning_starts: int = 0) -> None:
        self.total = total_steps
        self.learning_starts = learning_starts
        self.last = (first_step, time.perf_counter())  # line
        self.shown: dict[str, str] = {}
        self.next_line = first_step
        self.bar = (
            tqdm(
                total=total_steps,
                initial=first_step,
                unit=" steps",
                dynamic_ncols=True,
                file=sys.stdout,
            )
            if sys.stdout.isatty()
            else None
        )

    def note(self, values: Mapping[str, float]) -> None:
        """Takes over what is worth showing of the newest values."""
        newest = {name: f"{values[tag]:.4g}" for name, tag in SHOWN.items() if tag in values}
        known = {**self.shown, **newest}
        self.shown = {name: known[name] for name in SHOWN if name in known}

    def update(self, step: int) -> None:
        """Shows where the run is."""
        if self.bar is not None:
            self.bar.set_postfix(self.shown, refresh=False)
            self.bar.update(step - self.bar.n)
        elif step >= self.next_line or step >= self.total:
            self.next_line = step + max(1, self.total // LINES)
            past, then = self.last  # steps before the first update take next to no time
            self.last = (step, time.perf_counter())
            rate = max(step - past, 1) / max(self.last[1] - then, 1e-9)
            values = "  ".join(f"{name} {value:>7}" for name, value in self.shown.items())
            line = f"step {step:>{len(str(self.total))}}/{self.total}  {values}  "
            if past >= self.learning_starts:
                left = max(0, self.total - step) / rate
                line += f"{rate:,.0f} steps/s  {left:.0f} s left"
            else:
                line += "not yet learning" if step < self.learning_starts else ""
            print(line.rstrip(), flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
