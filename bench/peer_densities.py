"""Squashed Gaussians elsewhere: libraries as installed, and formulas of single-file codebases.

Each is called as its SAC calls it, with one action per state: mean, log_std, noise and actions are
(N, 1), log-probabilities (N,) or (N, 1), in nats. Formulas are restated from the sources named.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution
from torch.nn.functional import softplus

from policies import TanhGaussian
from policies.gaussian import HALF_LOG_2PI

SEED = 0
EPS, EDGE = 1e-6, 1.0 - 1e-6
ACTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "clip": lambda u: u.clamp(-1.0, 1.0),
    "plain": lambda u: u,
}
Own = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]  # -> action, log_pi
Given = Callable[[Tensor, Tensor, Tensor], Tensor]
Noise = Callable[[int], Tensor]  # of so many draws, (N, 1)
LogDet = Callable[[Tensor, Tensor], Tensor]  # of u and its action


def torch_noise(count: int) -> Tensor:
    """What `Normal.rsample` draws next, (count, 1)."""
    return Normal(torch.zeros(count, 1), torch.ones(count, 1)).rsample()


@dataclass(frozen=True)
class Peer:
    """A density and where it is from; bench/peers.yaml describes the rest.

    `own(mean, log_std, noise)` is the sample of training with its log-probability, `given(mean,
    log_std, action)` that of an action from elsewhere. A library draws its own noise; `noise` is
    what it will draw.
    """

    own: Own
    given: Given | None = None
    noise: Noise = torch_noise
    name: str = ""
    form: str = ""
    log_std_min: float = -20.0
    package: str = ""
    sources: Sequence[str] = ()
    action: str = "tanh"


# formulas, restated


def stable(u: Tensor, action: Tensor) -> Tensor:
    """log(1 - tanh(u)^2) as TensorFlow Probability writes it."""
    return 2.0 * (math.log(2.0) - u - softplus(-2.0 * u))


def restated(log_det: LogDet, inverse: Callable[[Tensor], Tensor] | None = None) -> tuple[Any, ...]:
    """log N(u) by (u - mean) / std, minus `log_det`; of an action alone with its own atanh."""

    def density(mean: Tensor, log_std: Tensor, u: Tensor, action: Tensor) -> Tensor:
        return Normal(mean, log_std.exp()).log_prob(u) - log_det(u, action)

    def own(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        u = mean + log_std.exp() * noise
        action = torch.tanh(u)
        return action, density(mean, log_std, u, action)

    def given(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
        assert inverse is not None
        return density(mean, log_std, inverse(action), action)

    return (own, given) if inverse else (own,)


def from_noise(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """TD-MPC2: the Gaussian from its noise, the correction with 1e-6."""
    action = torch.tanh(mean + log_std.exp() * noise)
    gaussian = -0.5 * noise.square() - log_std - HALF_LOG_2PI
    return action, gaussian - torch.log(torch.relu(1.0 - action.square()) + EPS)


def rlkit_inverse(action: Tensor) -> Tensor:
    action = action.clamp(-EDGE, EDGE)
    return 0.5 * torch.log(1.0 + action) - 0.5 * torch.log(1.0 - action)


def rllib_inverse(action: Tensor) -> Tensor:
    """atanh after the way into the box [-1, 1] and back, which rounds once more."""
    return torch.atanh(((action + 1.0) / 2.0 * 2.0 - 1.0).clamp(-EDGE, EDGE))


def rllib_clamped(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """RLlib at 3aea1da: the Gaussian clamped, the correction with 1e-6."""
    u = rllib_inverse(action)
    gaussian = Normal(mean, log_std.exp()).log_prob(u).clamp(-100.0, 100.0)
    return gaussian - torch.log(1.0 - torch.tanh(u).square() + EPS)


def rllib_clamped_own(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    action = (torch.tanh(mean + log_std.exp() * noise) + 1.0) / 2.0 * 2.0 - 1.0
    return action, rllib_clamped(mean, log_std, action)


def epsilon(u: Tensor, action: Tensor) -> Tensor:
    return torch.log(1.0 - action.square() + EPS)


# libraries, imported when they are measured


def torch_tanh(cache_size: int) -> tuple[Own, Given]:
    """`torch.distributions` with its TanhTransform, which keeps u of its last draw if cached."""

    def made(mean: Tensor, log_std: Tensor) -> TransformedDistribution:
        base = Independent(Normal(mean, log_std.exp()), 1)
        return TransformedDistribution(base, [TanhTransform(cache_size=cache_size)])

    def own(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        policy = made(mean, log_std)
        action = policy.rsample()
        return action, policy.log_prob(action)

    return own, lambda mean, log_std, action: made(mean, log_std).log_prob(action)


def sb3() -> Any:
    from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution

    return SquashedDiagGaussianDistribution(1)


def tanh_normal(mean: Tensor, log_std: Tensor) -> Any:
    """TorchRL's; its SAC loss samples by `rsample_and_log_prob`."""
    from torchrl.modules import TanhNormal

    return TanhNormal(mean, log_std.exp())


def tianshou_own(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    from gymnasium.spaces import Box
    from tianshou.algorithm.modelfree.sac import SACPolicy
    from tianshou.data import Batch

    class Actor(torch.nn.Module):
        def forward(self, obs: Any, **others: Any) -> Any:
            return (mean, log_std.exp()), None

    space = Box(-1.0, 1.0, (1,))
    policy = SACPolicy(actor=Actor(), action_space=space, deterministic_eval=False)
    drawn = policy(Batch(obs=torch.zeros(len(mean), 1), info={}))
    return drawn.act, drawn.log_prob


def skrl(clip: bool) -> tuple[Own, Given]:
    """The model of skrl's SAC: a Gaussian that is not squashed, and clipped if asked."""

    def acted(mean: Tensor, log_std: Tensor, **taken: Tensor) -> tuple[Tensor, Tensor]:
        from gymnasium.spaces import Box
        from skrl.models.torch import GaussianMixin, Model

        compute = {"compute": lambda self, inputs, role="": (mean, {"log_std": log_std})}
        actor: Any = object.__new__(type("Actor", (GaussianMixin, Model), compute))
        space = Box(-1.0, 1.0, (1,))
        Model.__init__(actor, observation_space=space, action_space=space, device="cpu")
        GaussianMixin.__init__(actor, clip_actions=clip)
        action, outputs = actor.act(taken)
        return action, outputs["log_prob"]

    def given(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
        return acted(mean, log_std, taken_actions=action)[1]

    return lambda mean, log_std, noise: acted(mean, log_std), given


@cache
def sbx_density() -> Any:
    """The density of SBX's own draws, or of actions, with its derivatives, jitted as in its SAC."""
    import jax
    import jax.numpy as jnp
    from sbx.common.distributions import TanhTransformedDistribution, tfd

    def density(mean: Any, log_std: Any, action: Any) -> Any:
        normal = tfd.MultivariateNormalDiag(loc=mean, scale_diag=jnp.exp(log_std))
        policy = TanhTransformedDistribution(normal)
        if action is None:
            action = policy.sample(seed=jax.random.PRNGKey(SEED))
        value = policy.log_prob(action)
        return value.sum(), (action, value)

    return jax.jit(jax.value_and_grad(density, argnums=(0, 1), has_aux=True))


def sbx(mean: Tensor, log_std: Tensor, action: Tensor | None) -> tuple[Tensor, Tensor]:
    """(action, log-probability), of its own draw where no action is given."""
    import numpy as np

    count = len(mean)
    size = count if action is None else 1 << (count - 1).bit_length()  # each is compiled: few
    filled = [
        None if x is None else np.pad(x.detach().float().numpy(), ((0, size - count), (0, 0)))
        for x in (mean, log_std, action)
    ]
    (_, (drawn, value)), slopes = sbx_density()(*filled)
    drawn, value, *slopes = (torch.from_numpy(np.array(x[:count])) for x in (drawn, value, *slopes))
    moved = [slope * (x - x.detach()) for slope, x in zip(slopes, (mean, log_std), strict=True)]
    return drawn, value + torch.cat(moved, -1).sum(-1)  # of 0, with the slopes from there


def sbx_noise(count: int) -> Tensor:
    import jax
    import numpy as np
    from sbx.common.distributions import tfd

    normal = tfd.MultivariateNormalDiag(np.zeros((count, 1), "f4"), np.ones((count, 1), "f4"))
    return torch.from_numpy(np.array(normal.sample(seed=jax.random.PRNGKey(SEED))))


# skrl switches off the checks of torch's Normal for the process, so it goes after other libraries
DENSITIES: dict[str, tuple[Any, ...]] = {  # own, given, noise, as in `Peer`
    "logpi": (
        lambda mean, log_std, noise: TanhGaussian(mean, log_std).rsample_with_log_prob(noise),
        lambda mean, log_std, action: TanhGaussian(mean, log_std).log_prob(action),
    ),
    "torch": torch_tanh(0),
    "torch-cached": torch_tanh(1),
    "sb3": (
        lambda mean, log_std, noise: sb3().log_prob_from_params(mean, log_std),
        lambda mean, log_std, action: sb3().proba_distribution(mean, log_std).log_prob(action),
    ),
    "sbx": (
        lambda mean, log_std, noise: sbx(mean, log_std, None),
        lambda mean, log_std, action: sbx(mean, log_std, action)[1],
        sbx_noise,
    ),
    "torchrl": (
        lambda mean, log_std, noise: tanh_normal(mean, log_std).rsample_and_log_prob(),
        lambda mean, log_std, action: tanh_normal(mean, log_std).log_prob(action),
    ),
    "tianshou": (tianshou_own,),
    "skrl": skrl(clip=False),
    "skrl-clipped": skrl(clip=True),
    "cleanrl": restated(lambda u, action: torch.log(1.0 * (1.0 - action.square()) + EPS)),
    "holosoma": restated(epsilon),
    "tdmpc2": (from_noise,),
    "garage": restated(epsilon, lambda a: 0.5 * torch.log((1.0 + a) / (1.0 - a))),
    "spinningup": restated(stable),
    "pytorch_sac": restated(stable, lambda a: 0.5 * (torch.log1p(a) - torch.log1p(-a))),
    "rlkit": restated(stable, rlkit_inverse),
    "rllib": restated(stable, rllib_inverse),
    "rllib-clamped": (rllib_clamped_own, rllib_clamped),
}
LISTED = yaml.safe_load((Path(__file__).parent / "peers.yaml").read_text(encoding="utf-8"))
PEERS = {name: Peer(*DENSITIES[name], **fields) for name, fields in LISTED.items()}
