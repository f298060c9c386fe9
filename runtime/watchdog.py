"""A temperature that rises without end: its target is out of reach."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

RUNAWAY = 100.0  # times its first value: what a temperature that finds its level does not reach
TAGS = {"policy/alpha", "policy/target_entropy", "policy/entropy"}


@dataclass
class Watchdog:
    """Warns once where alpha has grown a hundredfold and the entropy is still too low.

    Attributes:
        first_alpha: of the first log.
        warned: whether it has.
    """

    first_alpha: float | None = None
    warned: bool = False

    def look(self, shown: Mapping[str, float]) -> None:
        """Takes what a log has shown, in nats; nothing where no temperature is learned."""
        if not set(shown) >= TAGS:
            return
        alpha, target = shown["policy/alpha"], shown["policy/target_entropy"]
        self.first_alpha = self.first_alpha or alpha
        runs_away = alpha > RUNAWAY * self.first_alpha and shown["policy/entropy"] < target
        if runs_away and not self.warned:
            self.warned = True
            print(
                f"warning: the temperature runs away: alpha is {alpha:.3g} and the entropy, "
                f"{shown['policy/entropy']:.3g}, still below its target {target:.3g}; lower "
                "agent.target_entropy",
                file=sys.stderr,
            )
