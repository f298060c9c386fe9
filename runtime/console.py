"""Output of a run: warnings, a progress bar on a terminal, lines elsewhere."""

import itertools
import math
import re
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, SupportsFloat

from tqdm import tqdm

LINES = 20  # plain lines in a whole run
BORDER = re.compile(r"(?<!\\)\|")  # between the cells of a table
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


def steps_per_second(speed: float) -> str:
    """Two digits of a low speed, all those before the point of a high one: 0.21, 4,321."""
    return f"{speed:{',.0f' if speed >= 10 else '.2g'}}"


def aligned(text: str) -> str:
    """Markdown whose tables have columns of one width, for a screen."""
    lines = list[str]()
    for of_table, group in itertools.groupby(text.split("\n"), lambda line: line.startswith("|")):
        if not of_table:
            lines += group
            continue
        head, _, *rows = ([cell.strip() for cell in BORDER.split(line)[1:-1]] for line in group)
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
        for cells in (head, *rows):
            padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            lines += [f"| {' | '.join(padded)} |", *([rule] if cells is head else [])]
    return "\n".join(lines)


class Progress:
    """Steps done, time left, and the numbers to watch, in one order.

    The speed is that of training, as TensorBoard has it. The time left has evaluations, too: it is
    that of whole rollouts, over the last `period` steps if there are so many.

    Args:
        learning_starts: steps without an update, whose speed does not count.
        rollout: steps from one update to the next.
        period: steps in which everything happens that takes time, evaluations too.
    """

    def __init__(
        self,
        total_steps: int,
        first_step: int = 0,
        learning_starts: int = 0,
        rollout: int = 1,
        period: int = 1,
    ) -> None:
        self.total, self.learning_starts = total_steps, learning_starts
        self.rollout, self.period = rollout, period
        self.ends = deque[tuple[int, float]]()  # (step, time) after rollouts in the last period
        if first_step >= learning_starts and first_step % rollout == 0:
            self.ends.append((first_step, time.perf_counter()))
        self.next_line = first_step
        self.values: dict[str, float] = {}  # the newest of each tag
        self.fresh: set[str] = set()  # tags that have a new one since the last line
        self.bar: tqdm[Any] | None = None
        if sys.stdout.isatty():  # a disabled bar would have a thread, too
            self.bar = tqdm(
                total=total_steps,
                initial=first_step,
                unit=" steps",
                dynamic_ncols=True,
                file=sys.stdout,
                bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
            )

    def note(self, values: Mapping[str, float]) -> None:
        """Takes the newest values, by tag."""
        self.values.update(values)
        self.fresh.update(values)

    def update(self, step: int) -> None:
        """Shows where the run is; in a line, a value that is not new is a dash."""
        speed = self.speed(step)
        known = {name: tag for name, tag in SHOWN.items() if tag in self.values}
        if self.bar is not None:
            values = "  ".join(f"{name} {self.values[tag]:.4g}" for name, tag in known.items())
            self.bar.set_postfix_str(f"{speed}  {values}".strip(), refresh=False)
            self.bar.update(step - self.bar.n)
        elif step >= self.next_line or step >= self.total:
            self.next_line = step + max(1, self.total // LINES)
            values = "  ".join(
                f"{name} {f'{self.values[tag]:.4g}' if tag in self.fresh else '-':>7}"
                for name, tag in known.items()
            )
            self.fresh.clear()
            line = f"step {step:>{len(str(self.total))}}/{self.total}  {values}  {speed}"
            print(line.rstrip(), flush=True)

    def speed(self, step: int) -> str:
        """Steps per second and the time left, each as soon as a whole rollout has been timed."""
        now = time.perf_counter()
        if step < max(self.learning_starts, self.rollout):
            return "not yet learning"
        if not self.ends or step // self.rollout > self.ends[-1][0] // self.rollout:
            self.ends.append((step, now))
        while len(self.ends) > 2 and self.ends[1][0] <= self.ends[-1][0] - self.period:
            self.ends.popleft()
        (past, then), (last, ended) = self.ends[0], self.ends[-1]
        if past == last:
            return ""
        seconds = (ended - then) / (last - past)  # per step
        left = (self.total - last) * seconds - (now - ended) if step < self.total else 0
        speed = self.values.get("time/steps_per_second")
        per_second = "" if speed is None else f"{steps_per_second(speed)} steps/s  "
        return f"{per_second}{max(0, left):.0f} s left"

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
