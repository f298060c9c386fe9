"""Wrong policies: formulas that people actually write, which the gallery must reject."""

import torch
from torch import Tensor

import policies
from policies.numerics import HALF_LOG_2PI, log_det_tanh


class Formula:
    """The right log-density of a (squashed) Gaussian, in parts that a subclass gets wrong.

    Args:
        mean: (*, A).
        scale: log_std (*, A), or scale_tril (*, A, A).
        squashed: whether the action is tanh of the latent.
    """

    def __init__(self, mean: Tensor, scale: Tensor, squashed: bool) -> None:
        self.mean, self.scale, self.squashed = mean, scale, squashed
        self.full = scale.ndim > mean.ndim

    def log_prob(self, action: Tensor, latent: Tensor | None = None) -> Tensor:
        u = latent if self.squashed and latent is not None else action
        if self.full:
            noise = policies.FullGaussian(self.mean, self.scale).noise_of(u)
        else:
            noise = (u - self.mean) / self.scale.exp()
        return self.score(noise, u)

    def rsample_with_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        u = self.latent_of(noise)
        return torch.tanh(u) if self.squashed else u, self.score(noise, u)

    def latent_of(self, noise: Tensor) -> Tensor:
        if self.full:
            return self.mean + (self.scale @ noise.unsqueeze(-1)).squeeze(-1)
        return self.mean + self.scale.exp() * noise

    def terms(self, noise: Tensor) -> dict[str, Tensor]:
        return self.parts(noise, self.latent_of(noise))

    def parts(self, noise: Tensor, u: Tensor) -> dict[str, Tensor]:
        log_std = self.scale.diagonal(dim1=-2, dim2=-1).log() if self.full else self.scale
        scale = -self.log_scale(log_std).expand_as(noise)
        parts = {"gaussian": -0.5 * noise.square() - HALF_LOG_2PI, "scale": scale}
        return parts | ({"jacobian": -self.log_det(u)} if self.squashed else {})

    def score(self, noise: Tensor, u: Tensor) -> Tensor:
        parts = list(self.parts(noise, u).values())
        return self.total(sum(parts[1:], parts[0]))

    def log_scale(self, log_std: Tensor) -> Tensor:
        return log_std

    def log_det(self, u: Tensor) -> Tensor:
        return log_det_tanh(u)

    def total(self, terms: Tensor) -> Tensor:
        return terms.sum(-1)


class JacobianAdded(Formula):
    """log pi = log N(u) + log det: compressed probability made thinner."""

    def log_det(self, u: Tensor) -> Tensor:
        return -log_det_tanh(u)


class SigmaForLogSigma(Formula):
    """-sigma where -log sigma belongs."""

    def log_scale(self, log_std: Tensor) -> Tensor:
        return log_std.exp()


class Epsilon(Formula):
    """log(1 - a^2 + 1e-6): an upper bound on the correction, with no gradient at saturation."""

    def log_det(self, u: Tensor) -> Tensor:
        return torch.log(1 - torch.tanh(u).square() + 1e-6)


class TanhTwice(Formula):
    """The log-determinant at the squashed action in place of u."""

    def log_det(self, u: Tensor) -> Tensor:
        return log_det_tanh(torch.tanh(u))


class SumForgotten(Formula):
    """One number per component, (*, A) in place of (*,)."""

    def total(self, terms: Tensor) -> Tensor:
        return terms


WRONG: dict[str, type[Formula]] = {
    "jacobian_added": JacobianAdded,
    "sigma_for_log_sigma": SigmaForLogSigma,
    "epsilon": Epsilon,
    "tanh_twice": TanhTwice,
    "sum_forgotten": SumForgotten,
}


def atanh_by_logs(action: Tensor) -> Tensor:
    """log((1 + a + 1e-8) / (1 - a + 1e-8)) / 2."""
    return 0.5 * torch.log((1 + action + 1e-8) / (1 - action + 1e-8))


def log_det_epsilon(u: Tensor) -> Tensor:
    return torch.log(1 - torch.tanh(u).square() + 1e-6)


def log_det_plain(u: Tensor) -> Tensor:
    return torch.log(1 - torch.tanh(u).square())


def log_of_softmax(logits: Tensor) -> Tensor:
    return torch.log(torch.softmax(logits, -1))
