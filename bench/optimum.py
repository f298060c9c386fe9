"""How good a policy for Pendulum can be: `python bench/optimum.py run=runs/...`, some minutes.

Dynamic programming over a grid of angles, speeds and torques, then play from the same starts: by
the best policy that knows how many steps are left, and by the policies of runs. What a policy loses
against the best one from each start has a far smaller error than its mean return.
"""

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common.errors import ConfigError  # noqa: E402
from data import Spec  # noqa: E402
from runtime.launch.door import tool  # noqa: E402

USAGE = """\
usage: python bench/optimum.py [run=RUN_DIR ...] [gamma=0.99 ...] [starts=4000] [angles=512]
How good a policy for Pendulum can be, by dynamic programming, and what those of runs lose against
it from the same starts.
gamma: below 1; what the best play for a discounted return loses, too
angles: of the grid; speeds and torques follow. 512 takes three minutes on one core, for each
gamma, too."""
STEPS, SPEED, TORQUE, SECONDS = 200, 8.0, 2.0, 0.05  # of Gymnasium's Pendulum-v1
BANDS = 6  # of the angle at the start, 30 degrees on either side
PENDULUM = Spec(3, 1, discrete=False)
Act = Callable[[Tensor, Tensor, int], Tensor]  # angles, speeds (N,), steps left -> torques (N,)


def main(arguments: list[str]) -> int:
    """Prints a line for the best policy and one for each run; returns the exit code."""
    return tool(USAGE, compare, arguments, bare=True)


def compare(arguments: list[str]) -> int:
    import policies

    numbers, runs, discounts = {"starts": 4000, "angles": 512}, [], []
    for argument in arguments:
        name, _, text = argument.partition("=")
        if name == "run" and text:
            runs.append(text)
        elif name in numbers and text.isdigit() and int(text) > 1:
            numbers[name] = int(text)
        elif name == "gamma" and re.fullmatch(r"0?\.\d+", text):
            discounts.append(float(text))
        elif name != "debug":
            raise ConfigError(f"{name}: {text!r} is not understood; --help shows what is")
    trained = [policies.load(run) for run in runs]
    for run, policy in zip(runs, trained, strict=True):
        if policy.agent.spec != PENDULUM:
            raise ConfigError(f"run: {run} is not one of Pendulum; give one that is")
    angle, speed = starts(numbers["starts"])
    best = play(Table(numbers["angles"]).act, angle, speed)
    print(
        f"best  {best.mean():.2f}, standard error {best.std() / len(best) ** 0.5:.2f}", flush=True
    )
    for gamma in discounts:
        other = play(Table(numbers["angles"], gamma=gamma).act, angle, speed)
        print(loss(f"best for gamma={gamma:g}", best, other, angle), flush=True)
    for run, policy in zip(runs, trained, strict=True):

        def act(angle: Tensor, speed: Tensor, left: int, policy: object = policy) -> Tensor:
            obs = torch.stack([angle.cos(), angle.sin(), speed], -1).numpy()
            return torch.as_tensor(policy(obs)).flatten()  # type: ignore[operator]

        print(loss(run, best, play(act, angle, speed), angle))
    return 0


def loss(name: str, best: Tensor, found: Tensor, angle: Tensor) -> str:
    """What returns (N,) lose against the best from the same angles, as one line."""
    lost, band = best - found, (angle.abs() / math.pi * BANDS).long().clamp(max=BANDS - 1)
    means = ", ".join(f"{lost[band == index].mean():.1f}" for index in range(BANDS))
    return (
        f"{name}  {found.mean():.2f}, loses {lost.mean():.2f}, standard error "
        f"{lost.std() / len(lost) ** 0.5:.2f}; by the start, upright to hanging: {means}"
    )


def starts(count: int) -> tuple[Tensor, Tensor]:
    """Angles and speeds as a reset of the environment draws them, the same each time."""
    generator = torch.Generator().manual_seed(0)
    angle, speed = torch.rand(2, count, generator=generator) * 2.0 - 1.0
    return angle * math.pi, speed


def step(angle: Tensor, speed: Tensor, torque: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """(reward, next angle in [-pi, pi), next speed) of Gymnasium's Pendulum-v1."""
    torque = torch.as_tensor(torque)
    reward = -(angle.square() + 0.1 * speed.square() + 0.001 * torque.square())
    speed = (speed + (15.0 * angle.sin() + 3.0 * torque) * SECONDS).clamp(-SPEED, SPEED)
    return reward, torch.remainder(angle + speed * SECONDS + math.pi, 2 * math.pi) - math.pi, speed


def play(act: Act, angle: Tensor, speed: Tensor) -> Tensor:
    """The returns (N,) of whole episodes."""
    total = torch.zeros_like(angle)
    for left in range(STEPS, 0, -1):
        reward, angle, speed = step(angle, speed, act(angle, speed, left))
        total += reward
    return total


class Table:
    """The best return from a grid of states, for every number of steps that are left.

    Args:
        angles: of the grid.
        steps: that an episode has.
        gamma: the discount of the return.
    """

    def __init__(self, angles: int, steps: int = STEPS, gamma: float = 1.0) -> None:
        self.angles, self.speeds, self.gamma = angles, angles * 3 // 4 + 1, gamma
        angle = torch.linspace(-math.pi, math.pi, angles + 1)[:-1, None]
        speed = torch.linspace(-SPEED, SPEED, self.speeds)
        after = [step(angle, speed, torque) for torque in self.torques(angles // 16 + 1)]
        self.values = [torch.zeros(angles, self.speeds)]
        for _ in range(steps):
            best = torch.full((angles, self.speeds), -math.inf)
            for reward, next_angle, next_speed in after:
                best = torch.maximum(best, reward + gamma * self.at(-1, next_angle, next_speed))
            self.values.append(best)

    @staticmethod
    def torques(count: int) -> list[float]:
        return torch.linspace(-TORQUE, TORQUE, count).tolist()  # type: ignore[no-any-return]

    def at(self, left: int, angle: Tensor, speed: Tensor) -> Tensor:
        """The value of states with so many steps left, between those of the grid."""
        values = self.values[left]
        column = torch.remainder((angle + math.pi) * (self.angles / (2 * math.pi)), self.angles)
        row = (speed + SPEED) * ((self.speeds - 1) / (2 * SPEED))
        first, second = column.long() % self.angles, row.long().clamp(max=self.speeds - 2)
        across, up = column - column.floor(), row - second
        following = (first + 1) % self.angles
        low = values[first, second].lerp(values[following, second], across)
        return low.lerp(values[first, second + 1].lerp(values[following, second + 1], across), up)

    def act(self, angle: Tensor, speed: Tensor, left: int) -> Tensor:
        """The torques that lead to the largest sum of reward and what follows."""
        torques = self.torques(101)
        worth = []
        for torque in torques:
            reward, next_angle, next_speed = step(angle, speed, torque)
            worth.append(reward + self.gamma * self.at(left - 1, next_angle, next_speed))
        return torch.tensor(torques)[torch.stack(worth).argmax(0)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
