"""The first layers of all networks, which scale observations, and the scale of rewards."""

from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CLIP = 10.0  # standard deviations
ROUNDING = torch.finfo(torch.float32).eps  # relative distance between neighbouring numbers
SMALLEST, LARGEST = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
Ranges = Sequence[tuple[int, int]]  # components that are bytes of an image: first, last + 1


def inverse_deviation(mean: Tensor, variance: Tensor, constant: float) -> Tensor:
    """1 / std of float32 numbers, from their mean and variance in float64.

    `constant` where they vary by no more than the resolution of float32 at their mean.
    """
    least = (ROUNDING * mean.abs()).clamp_min(SMALLEST)
    return torch.where(variance > least.square(), variance.rsqrt(), constant)


class UnitNorm(nn.Module):
    """Scales each observation to Euclidean length 1."""

    def forward(self, obs: Tensor) -> Tensor:
        return functional.normalize(obs, dim=-1)


class Pixels(nn.Module):
    """Bytes (*, O) -> float32 in [0, 1]."""

    def forward(self, obs: Tensor) -> Tensor:
        return obs.float() / 255.0


class Unpack(nn.Module):
    """Rows of bytes (*, 4 F + I) -> (*, O) float32; observations of numbers stay as they are.

    A row begins with the F numbers that are in no image, as float32, lowest byte first; then come
    the bytes of the images, in their order.
    """

    def __init__(self, obs_dim: int, ranges: Ranges) -> None:
        super().__init__()
        edges = pairwise([0, *chain.from_iterable(ranges), obs_dim])
        self.sizes = [stop - start for start, stop in edges]  # of numbers and of images, in turn
        self.first = 4 * sum(self.sizes[::2])  # byte of the images

    def forward(self, obs: Tensor) -> Tensor:
        if obs.dtype != torch.uint8:
            return obs
        return self.join(self.numbers(obs), obs[..., self.first :].float())

    def numbers(self, obs: Tensor) -> Tensor:
        """The components (*, F) that are in no image."""
        if obs.dtype != torch.uint8:
            return torch.cat(obs.split(self.sizes, -1)[::2], -1)
        lowest, low, high, highest = obs[..., : self.first].int().unflatten(-1, (-1, 4)).unbind(-1)
        return (lowest | low << 8 | high << 16 | highest << 24).view(torch.float32)

    def join(self, numbers: Tensor, images: Tensor) -> Tensor:
        """(*, F) and (*, I) -> (*, O)."""
        before, *others = numbers.split(self.sizes[::2], -1)
        pairs = zip(images.split(self.sizes[1::2], -1), others, strict=True)
        return torch.cat([before, *chain.from_iterable(pairs)], -1)


class SomePixels(Unpack):
    """Observations (*, O), or rows as of `Unpack`, whose bytes are divided by 255."""

    factor: Tensor

    def __init__(self, obs_dim: int, ranges: Ranges) -> None:
        super().__init__(obs_dim, ranges)
        factor = torch.ones(obs_dim)
        for start, stop in ranges:
            factor[start:stop] = 1.0 / 255.0
        self.register_buffer("factor", factor)

    def forward(self, obs: Tensor) -> Tensor:
        return super().forward(obs) * self.factor


class RunningNorm(Unpack):
    """(obs - mean) / std over all observations seen, clipped to +-10 standard deviations.

    Statistics are gathered in float64 by the parallel form of Chan, Golub and LeVeque (1979),
    eq. 2.1; fewer than two observations have no effect. A component that is constant up to the
    resolution of float32 is centred, but not scaled. Bytes of images are only divided by 255;
    observations may be rows as of `Unpack`. The last `mask` components are not changed.
    """

    mean: Tensor
    inverse_std: Tensor
    seen_count: Tensor
    seen_mean: Tensor
    seen_square: Tensor  # sum of squared deviations from seen_mean
    pixels: Tensor | None  # which components are bytes

    def __init__(self, obs_dim: int, ranges: Ranges = (), mask: int = 0) -> None:
        super().__init__(obs_dim, ranges)
        self.mask = mask
        factor = SomePixels(obs_dim, ranges).factor
        self.register_buffer("pixels", factor < 1.0 if ranges else None)
        self.register_buffer("mean", torch.zeros(obs_dim))
        self.register_buffer("inverse_std", factor)
        self.register_buffer("seen_count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("seen_mean", torch.zeros(obs_dim, dtype=torch.float64))
        self.register_buffer("seen_square", torch.zeros(obs_dim, dtype=torch.float64))

    def forward(self, obs: Tensor) -> Tensor:
        """(*, O) -> (*, O), under the statistics of the last `update`."""
        return ((super().forward(obs) - self.mean) * self.inverse_std).clamp(-CLIP, CLIP)

    @torch.no_grad()
    def update(self, obs: Tensor, skip: Tensor | None = None) -> None:
        """Adds new observations (B, O) to the statistics, unless the 0-d bool `skip` is true."""
        obs = (obs if self.pixels is None else self.numbers(obs)).to(self.seen_mean)
        taken = torch.ones_like(self.seen_count) if skip is None else (~skip).to(self.seen_count)
        count, mean = len(obs) * taken, obs.mean(0)
        square = (obs - mean).square().sum(0)
        if self.pixels is not None:  # bytes have no statistics
            none = mean.new_zeros(len(self.pixels) - len(mean))
            mean, square = self.join(mean, none), self.join(square, none)
        total = self.seen_count + count
        share = count / total.clamp_min(1.0)
        difference = mean - self.seen_mean
        self.seen_square += taken * square
        self.seen_square += difference.square() * (self.seen_count * share)
        self.seen_mean += difference * share
        self.seen_count.copy_(total)
        enough = self.seen_count > 1
        variance = self.seen_square / self.seen_count.clamp_min(1.0)
        self.mean.copy_(torch.where(enough, self.seen_mean, 0.0))
        inverse_std = inverse_deviation(self.seen_mean, variance, constant=1.0)
        self.inverse_std.copy_(torch.where(enough, inverse_std, 1.0))
        if self.pixels is not None:
            self.inverse_std.masked_fill_(self.pixels, 1.0 / 255.0)
        if self.mask:
            self.mean[-self.mask :], self.inverse_std[-self.mask :] = 0.0, 1.0


class ReturnScale(nn.Module):
    """The size of discounted returns, in which `agent.reward_scale=auto` measures rewards.

    It is the standard deviation of all discounted sums of rewards so far, each since the beginning
    of its episode: Engstrom et al. 2020 (arXiv 2005.12729), appendix A.2, without clipping. While
    all sums are equal, it is 1.
    """

    share = 0.0  # of the largest sum, a lower bound of the unit
    continuing = False  # whether sums continue across truncation
    unit: Tensor
    largest: Tensor
    running: Tensor

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma, self.statistics = gamma, RunningNorm(1)
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("largest", torch.zeros((), dtype=torch.float64))
        self.register_buffer("running", torch.zeros(0, dtype=torch.float64))  # (N,)

    @torch.no_grad()
    def update(self, rows: Tensor, gather: Callable[[Tensor], Tensor], skip: Tensor) -> None:
        """Adds the new steps of all ranks, unless the 0-d bool `skip` is true.

        Args:
            rows: (N, 3) or (T, N, 3): reward, 1 if terminated, 1 if truncated.
            gather: maps the rows (N, ...) of this rank to those of all ranks.
        """
        copies = rows.reshape(-1, *rows.shape[-2:]).transpose(0, 1)  # (N, T, 3)
        reward, terminated, truncated = gather(copies).transpose(0, 1).unbind(-1)
        running, sums = self.running, []
        if len(running) != reward.shape[1]:
            running = self.running = running.new_zeros(reward.shape[1])
        ends = terminated.bool() if self.continuing else (terminated + truncated).bool()
        for paid, end in zip(reward, ends, strict=True):
            sums.append(self.gamma * running + paid)
            running = torch.where(end, 0.0, sums[-1])
        returns, seen = torch.stack(sums), self.statistics
        skip = skip | ~returns.isfinite().all()  # the update itself reports them
        returns = torch.where(skip, 0.0, returns)
        self.running = torch.where(skip, self.running, running)
        seen.update(returns.reshape(-1, 1), skip=skip)
        largest = torch.maximum(self.largest, returns.abs().amax())
        self.largest.copy_(torch.where(skip, self.largest, largest))
        deviation = (seen.seen_square[0] / seen.seen_count.clamp_min(1.0)).sqrt()
        unit = torch.maximum(deviation, self.share * self.largest)
        self.unit.copy_(torch.where(unit > 0.0, unit, 1.0).clamp_max(LARGEST))

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        self.running = self.running.new_zeros(state_dict["running"].shape)
        return super().load_state_dict(state_dict, *args, **kwargs)
