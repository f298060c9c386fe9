"""Wrong policies with common wrong formulas, which the gallery must reject."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import policies
from policies.gaussian import log_det_tanh

Part = Callable[[Tensor], Tensor]
Masked = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # logits, forbidden -> log p, entropy


class Formula:
    """The log-density of a (squashed) Gaussian, right unless one of its parts is given."""

    def __init__(
        self,
        mean: Tensor,  # (*, A)
        scale: Tensor,  # log_std (*, A), or scale_tril (*, A, A)
        squashed: bool,
        log_scale: Part = lambda log_std: log_std,  # what is subtracted for the scale
        log_det: Part = log_det_tanh,  # of tanh, at u
        total: Part = lambda terms: terms.sum(-1),  # of the terms of all components
    ) -> None:
        gaussian = policies.FullGaussian if scale.ndim > mean.ndim else policies.Gaussian
        self.gaussian, self.squashed = gaussian(mean, scale), squashed
        self.log_scale, self.log_det, self.total = log_scale, log_det, total

    def log_prob(self, action: Tensor, latent: Tensor | None = None) -> Tensor:
        u = latent if self.squashed and latent is not None else action
        return self.score(self.gaussian.noise_of(u), u)

    def rsample_with_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        u = self.gaussian.latent_of(noise)
        return torch.tanh(u) if self.squashed else u, self.score(noise, u)

    def terms(self, noise: Tensor) -> dict[str, Tensor]:
        return self.parts(noise, self.gaussian.latent_of(noise))

    def parts(self, noise: Tensor, u: Tensor) -> dict[str, Tensor]:
        parts = self.gaussian.terms(noise)
        parts["scale"] = -self.log_scale(self.gaussian.log_scale).expand_as(noise)
        return parts | ({"jacobian": -self.log_det(u)} if self.squashed else {})

    def score(self, noise: Tensor, u: Tensor) -> Tensor:
        return self.total(torch.stack([*self.parts(noise, u).values()]).sum(0))


def atanh_by_logs(action: Tensor) -> Tensor:
    """log((1 + a + 1e-8) / (1 - a + 1e-8)) / 2."""
    return 0.5 * torch.log((1 + action + 1e-8) / (1 - action + 1e-8))


def log_det_epsilon(u: Tensor) -> Tensor:
    return torch.log(1 - torch.tanh(u).square() + 1e-6)


def log_det_plain(u: Tensor) -> Tensor:
    return torch.log(1 - torch.tanh(u).square())


def log_of_softmax(logits: Tensor) -> Tensor:
    return torch.log(torch.softmax(logits, -1))


def scored(log_probs: Tensor) -> tuple[Tensor, Tensor]:
    return log_probs, policies.Categorical(log_probs).entropy()


def minus_1e8(logits: Tensor, forbidden: Tensor) -> tuple[Tensor, Tensor]:
    """logits - 1e8 (1 - mask): in float16 1e8 is infinite, and 0 times that is no number."""
    huge = torch.full_like(logits, -1e8, dtype=torch.float32).to(logits)
    return scored(torch.log_softmax(logits + forbidden.to(logits) * huge, -1))


MASKED: dict[str, Masked] = {
    # a softmax over all actions, some of which are left out afterwards
    "not_renormalised": lambda logits, forbidden: scored(
        torch.log_softmax(logits, -1).masked_fill(forbidden, -torch.inf)
    ),
    "minus_1e8": minus_1e8,
    # an entropy that counts what is forbidden
    "entropy_of_all": lambda logits, forbidden: (
        torch.log_softmax(logits.masked_fill(forbidden, -torch.inf), -1),
        policies.Categorical(torch.log_softmax(logits, -1)).entropy(),
    ),
}
WRONG: dict[str, Callable[..., Formula]] = {
    # log pi = log N(u) + log det: compressed probability made thinner
    "jacobian_added": partial(Formula, log_det=lambda u: -log_det_tanh(u)),
    # -sigma where -log sigma belongs
    "sigma_for_log_sigma": partial(Formula, log_scale=torch.exp),
    # an upper bound on the correction, with no gradient at saturation
    "epsilon": partial(Formula, log_det=log_det_epsilon),
    # the log-determinant at the squashed action in place of u
    "tanh_twice": partial(Formula, log_det=lambda u: log_det_tanh(torch.tanh(u))),
    # one number per component, (*, A) in place of (*,)
    "sum_forgotten": partial(Formula, total=lambda terms: terms),
}
