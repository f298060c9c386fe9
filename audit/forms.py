"""The mistakes that people make in log-probabilities: the error of each in nats, and its source.

A wrong `log_prob` is the right one plus `delta`. Each was reported in a public thread, or stands in
public code; the formulas are restated here. `audit.recognition` finds the one that fits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

Constant = Tensor | float
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
FREE = "1e-6"  # the constant of a mistake that is made with several; people write one of these:
USUAL = [*(10.0**-k for k in range(1, 17)), torch.finfo(torch.float32).eps]


@dataclass(frozen=True)
class Base:
    """A Gaussian, squashed by tanh into a box where there is one, at N points before tanh.

    Attributes:
        u: (N, A) points before tanh, float64.
        mean: (A,) of u.
        tril: (A, A) Cholesky factor of the covariance of u.
        low: (A,) lower ends of the box, or None where actions are u.
        high: (A,) its upper ends.
    """

    u: Tensor
    mean: Tensor
    tril: Tensor
    low: Tensor | None = None
    high: Tensor | None = None

    @cached_property
    def std(self) -> Tensor:
        """(A,); of correlated components, given those before."""
        return self.tril.diagonal()

    @cached_property
    def log_std(self) -> Tensor:
        return self.std.log()

    @cached_property
    def z(self) -> Tensor:
        """The noise (N, A) of u = mean + tril z."""
        return self.noise(self.u)

    @cached_property
    def log_slope(self) -> Tensor:
        """log(1 - tanh(u)^2), (N, A)."""
        return log_slope(self.u)

    @cached_property
    def log_half(self) -> Tensor:
        """Logarithms of half the widths of the box, (A,); 0 where there is none."""
        if self.low is None or self.high is None:
            return torch.zeros_like(self.mean)
        return torch.log((self.high - self.low) / 2.0)

    def noise(self, u: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.tril, (u - self.mean).T, upper=False).T

    def normal(self, z: Tensor) -> Tensor:
        """log N(u; mean, tril tril^T) at the points with noise z, (N,)."""
        return (-0.5 * z.square() - self.log_std - HALF_LOG_2PI).sum(-1)

    @cached_property
    def right(self) -> Tensor:
        """The right log-probability of the actions, (N,)."""
        normal = self.normal(self.z)
        return normal if self.low is None else normal - (self.log_slope + self.log_half).sum(-1)


@dataclass(frozen=True)
class Choices:
    """Claimed log-probabilities (K,) of one choice, its counts among draws, what is permitted."""

    log_probs: Tensor
    counts: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Form:
    """A mistake.

    Attributes:
        name: its key in FORMS.
        text: what is wrong, to be read after "looks like".
        source: where it was found.
        kind: a key of ERRORS, or "shape" or "support", where the numbers are right.
        delta: error in nats: of the log-probability at a Base, (N,); for the kind "entropy", of
            the entropy, as a mean over the draws; for "discrete", of each of the Choices, (K,).
            Where 1e-6 stands in the text, another constant may come second.
        constant: the one that was found; 1 before a fit, and where there is none.
        usual: whether it is one that people write.
    """

    name: str
    text: str
    source: str
    kind: str
    delta: Callable[..., Tensor]
    constant: float = 1.0
    usual: bool = True

    @property
    def free(self) -> bool:
        """Whether it is made with several constants."""
        return FREE in self.text

    def applies(self, base: Base) -> bool:
        """Whether it makes a difference there: most need a box, one that there is none."""
        if self.name == "jacobian_unsquashed" or base.low is None:
            return self.name not in IN_BOX if base.low is None else False
        if self.name.startswith("atanh_clipped"):
            return float(base.u.abs().max()) > math.atanh(1.0 - self.constant)
        return self.name not in SCALED or bool((base.log_half != 0.0).any())

    def at(self, constant: Tensor, error: float = 0.0) -> "Form":
        """The same with another constant than 1e-6, known up to a relative error."""
        value, delta = float(constant), partial(self.delta, constant=constant)
        nearest = min(USUAL, key=lambda one: abs(math.log(value / one)))
        usual = abs(math.log(value / nearest)) <= error
        words = f"{nearest if usual else value:.1e}".replace(".0e", "e").replace("e-0", "e-")
        text = self.text.replace(FREE, words)
        return replace(self, text=text, delta=delta, constant=value, usual=usual)

    def __add__(self, other: "Form") -> "Form":
        """Both mistakes at once; one of them at most has a constant."""

        def delta(base: Base, **constant: Tensor) -> Tensor:
            each = [form.delta(base, **(constant if form.free else {})) for form in (self, other)]
            return each[0] + each[1]

        name, text = f"{self.name} + {other.name}", f"{self.text} and {other.text}"
        return replace(self, name=name, text=text, delta=delta)


def log_slope(u: Tensor) -> Tensor:
    """log(1 - tanh(u)^2) = -2 log cosh(u), exact wherever u is."""
    return 2.0 * (math.log(2.0) - torch.logaddexp(u, -u))


def with_epsilon(slope: Tensor, epsilon: Constant) -> Tensor:
    """log(1 - a^2) - log(1 - a^2 + epsilon), given the former, summed."""
    return -torch.log1p(epsilon * torch.exp(-slope)).sum(-1)


def scored_at(base: Base, u: Tensor) -> Tensor:
    """The Gaussian at `u` in place of the right points."""
    return base.normal(base.noise(u)) - base.normal(base.z)


def every(base: Base, each: Tensor | float) -> Tensor:
    """The same at all points, (N,): the sum over dimensions of `each`."""
    return (torch.zeros_like(base.mean) + each).sum().expand(len(base.u))


def rescaled(base: Base, factor: Tensor, constant: Tensor) -> Tensor:
    """A Gaussian whose std is `factor` times the right one, and its constant, per dimension."""
    return (-0.5 * base.z.square() * (factor.pow(-2.0) - 1.0) + constant).sum(-1)


def jacobian_of_scaled(base: Base, constant: Constant = 1e-6) -> Tensor:
    """Not a number where a scaled action exceeds 1."""
    scaled = base.log_half.exp() * torch.tanh(base.u)
    return (base.log_slope + base.log_half - torch.log(1.0 - scaled.square() + constant)).sum(-1)


def clipped_slope(base: Base, constant: Constant = 1e-6) -> Tensor:
    return torch.clamp_max(
        base.log_slope - torch.as_tensor(constant, dtype=torch.float64).log(), 0.0
    ).sum(-1)


def atanh_epsilon(base: Base, constant: Constant = 1e-6) -> Tensor:
    size = base.u.abs()
    room = 2.0 / (1.0 + torch.exp(2.0 * size))  # 1 - |a|
    inexact = 0.5 * torch.log((2.0 - room + constant) / (room + constant)) * base.u.sign()
    return scored_at(base, inexact) + with_epsilon(base.log_slope, constant)


def atanh_clipped(base: Base, constant: Constant = 1e-6, epsilon: Constant = 0.0) -> Tensor:
    clip = 0.5 * torch.log(
        (2.0 - constant) / torch.as_tensor(constant, dtype=torch.float64)
    )  # atanh(1 - constant)
    u = base.u.clamp(-clip, clip)
    slope = log_slope(u)
    return scored_at(base, u) + (base.log_slope - slope).sum(-1) + with_epsilon(slope, epsilon)


def misplaced_parenthesis(base: Base) -> Tensor:
    wrong = -(base.z.square() + 2.0 * HALF_LOG_2PI) / (2.0 - base.log_std)
    return wrong.sum(-1) - base.normal(base.z)


def likeliest(given: Choices, logits: list[Tensor]) -> Tensor:
    """The log-probabilities under which the counts are likeliest, of several (K,)."""
    found = torch.stack(logits).log_softmax(-1)
    likelihood = torch.where(given.counts > 0, given.counts * found, 0.0).sum(-1)
    return found[likelihood.argmax()]


def masked(given: Choices) -> Tensor:
    return given.log_probs.masked_fill(~given.mask, -math.inf).log_softmax(-1)


def log_of_logs(given: Choices) -> Tensor:
    return torch.log(-given.log_probs) - torch.log(-given.log_probs.sum())


def explored(given: Choices) -> Tensor:
    probs = given.log_probs.exp()
    uniform = given.mask.to(probs) / given.mask.sum()
    return likeliest(given, [torch.lerp(probs, uniform, k / 500).log() for k in range(1, 500)])


def tempered(given: Choices) -> Tensor:
    return likeliest(given, [given.log_probs * 10.0 ** (k / 100) for k in range(-150, 151)])


ERRORS: dict[str, dict[str, Callable[..., Tensor]]] = {
    "jacobian": {
        "epsilon": lambda b, constant=1e-6: with_epsilon(b.log_slope, constant),
        "epsilon_scaled": lambda b, constant=1e-6: with_epsilon(b.log_slope + b.log_half, constant),
        "slope_clipped": clipped_slope,
        "jacobian_added": lambda b: 2.0 * b.log_slope.sum(-1),
        "jacobian_forgotten": lambda b: b.log_slope.sum(-1),
        "jacobian_of_scaled": jacobian_of_scaled,
        "jacobian_unsquashed": lambda b: -b.log_slope.sum(-1),
        "tanh_twice": lambda b: (b.log_slope - log_slope(torch.tanh(b.u))).sum(-1),
    },
    "inverse": {
        "tanh_scored": lambda b: scored_at(b, torch.tanh(b.u)),
        "atanh_clipped": atanh_clipped,
        "atanh_clipped_epsilon": lambda b, constant=1e-6: atanh_clipped(b, constant, constant),
        "atanh_epsilon": atanh_epsilon,
    },
    "scale": {
        "sigma_for_log_sigma": lambda b: every(b, b.log_std - b.std),
        "half_log_sigma": lambda b: every(b, 0.5 * b.log_std),
        "std_for_variance": lambda b: rescaled(b, b.std.rsqrt(), 0.5 * b.log_std),
        "variance_for_std": lambda b: rescaled(b, b.std, -b.log_std),
        "std_exponentiated": lambda b: rescaled(b, b.std.exp() / b.std, b.log_std - b.std),
        "misplaced_parenthesis": misplaced_parenthesis,
        "mean_scored": lambda b: 0.5 * b.z.square().sum(-1),
        "half_forgotten": lambda b: -0.5 * b.z.square().sum(-1),
        "mean_over_dimensions": lambda b: (1.0 / len(b.mean) - 1.0) * b.right,
        "times_dimensions": lambda b: (
            (len(b.mean) - 1.0) * (-0.5 * b.z.square() - b.log_std).sum(-1)
        ),
        "bits": lambda b: (1.0 / math.log(2.0) - 1.0) * b.right,
    },
    "constant": {
        "normaliser_forgotten": lambda b: every(b, b.log_std + HALF_LOG_2PI),
        "normaliser_added": lambda b: every(b, 2.0 * (b.log_std + HALF_LOG_2PI)),
        "constant_forgotten": lambda b: every(b, HALF_LOG_2PI),
        "constant_once": lambda b: every(b, HALF_LOG_2PI) - HALF_LOG_2PI,
        "root_for_log": lambda b: every(b, HALF_LOG_2PI - math.sqrt(2.0 * math.pi)),
        "half_subtracted": lambda b: every(b, -0.5),
        "affine_forgotten": lambda b: every(b, b.log_half),
    },
    "entropy": {
        "entropy_of_base": lambda b: -(b.log_slope + b.log_half).sum(-1),
        "entropy_half_log_sigma": lambda b: every(b, -0.5 * b.log_std),
    },
    "discrete": {
        "mask_forgotten": lambda c: c.log_probs - masked(c),
        "mask_zeroed": lambda c: c.log_probs - masked(c),
        "mask_not_drawn": lambda c: c.log_probs - masked(c),
        "temperature": lambda c: c.log_probs - tempered(c),
        "exploration_forgotten": lambda c: c.log_probs - explored(c),
        "softmax_twice": lambda c: c.log_probs - c.log_probs.exp().log_softmax(-1),
        "logs_as_probabilities": lambda c: c.log_probs - log_of_logs(c),
        "log_forgotten": lambda c: c.log_probs - c.log_probs.log(),
        "log_with_epsilon": lambda c: c.log_probs - torch.log(c.log_probs.exp() - 1e-8),
    },
    "shape": dict.fromkeys(
        ("sum_forgotten", "keepdim", "broadcast", "summed_over_batch"), lambda b: every(b, 0.0)
    ),
    "support": {"clipped": lambda b: every(b, 0.0)},
}
IN_BOX = {
    *(ERRORS["jacobian"].keys() | ERRORS["inverse"].keys()) - {"jacobian_unsquashed"},
    *("affine_forgotten", "entropy_of_base"),
}
SCALED = (
    "epsilon_scaled",
    "jacobian_of_scaled",
    "affine_forgotten",
)  # only where a half-width is not 1

# The words of a verdict; and a thread, or else a file, on GitHub.
FOUND = {
    "epsilon": ("log(1 − a² + 1e-6)", "pranz24/pytorch-soft-actor-critic#14"),
    "epsilon_scaled": ("log(scale · (1 − a²) + 1e-6)", "vwxyzjn/cleanrl#524"),
    "slope_clipped": (
        "log(max(1 − a², 1e-6))",
        "pocokhc/simple_distributed_rl/blob/884d4d6/srl/rl/functions/common_tf.py",
    ),
    "jacobian_added": ("log det of tanh added, not subtracted", "haarnoja/sac#18"),
    "jacobian_forgotten": ("log det of tanh forgotten", "automl/Mighty#118"),
    "jacobian_of_scaled": (
        "log(1 − a² + 1e-6) of the scaled action",
        "philtabor/Actor-Critic-Methods-Paper-To-Code#7",
    ),
    "jacobian_unsquashed": ("log det of tanh without a tanh", "hwang-ua/inac_pytorch#1"),
    "tanh_twice": ("log det of tanh at tanh(u), not at u", "boyu-ai/Hands-on-RL#44"),
    "tanh_scored": (
        "the Gaussian's density at tanh(u), not at u",
        "thu-ml/tianshou/blob/9c6353b/tianshou/policy/modelfree/sac.py",
    ),
    "atanh_clipped": ("atanh of a clipped to ±(1 − 1e-6)", "ray-project/ray#65036"),
    "atanh_clipped_epsilon": (
        "atanh of a clipped to ±(1 − 1e-6), and log(1 − a² + 1e-6)",
        "ray-project/ray#14878",
    ),
    "atanh_epsilon": ("1e-6 in atanh and in log(1 − a²)", "rlworkgroup/garage#2129"),
    "sigma_for_log_sigma": ("−σ in place of −log σ", "piEsposito/blitz-bayesian-deep-learning#14"),
    "half_log_sigma": ("−½ log σ in place of −log σ", "google-research/batch-ppo#13"),
    "std_for_variance": ("σ where the variance σ² belongs", "hill-a/stable-baselines#1059"),
    "variance_for_std": ("σ² where σ belongs", "MaximeRobeyns/bayesian_flow_networks#1"),
    "std_exponentiated": ("exp(σ) in place of σ", "hill-a/stable-baselines#1058"),
    "misplaced_parenthesis": ("−(z² + log 2π) / (2 − log σ)", "genjax-community/genjax#430"),
    "mean_scored": ("the density at the mean of u", "AI4Finance-Foundation/ElegantRL#296"),
    "half_forgotten": ("−z² in place of −½ z²", "scalanlp/breeze#5"),
    "mean_over_dimensions": ("a mean over dimensions, not a sum", "yifan123/flow_grpo#143"),
    "times_dimensions": ("log N times the number of dimensions", "nicklashansen/tdmpc2#44"),
    "bits": ("logarithms of base 2", "facebookresearch/fairseq#3009"),
    "normaliser_forgotten": ("−½ z² alone", "xuwd11/cs294-112_hws#1"),
    "normaliser_added": ("½ log(2πσ²) added, not subtracted", "gw-odw/odw-2023#38"),
    "constant_forgotten": ("−½ log 2π forgotten", "facebookresearch/deep_bisim4control#13"),
    "constant_once": ("−½ log 2π once, not for each dimension", "pints-team/pints#1179"),
    "root_for_log": ("−√2π in place of −½ log 2π", "hnisonoff/discrete_guidance#3"),
    "half_subtracted": ("a −½ too much", "piEsposito/blitz-bayesian-deep-learning#58"),
    "affine_forgotten": (
        "the affine map to the box is not in the density",
        "openai/spinningup#314",
    ),
    "entropy_of_base": ("the entropy before tanh", "Denys88/rl_games#153"),
    "entropy_half_log_sigma": ("½ log σ in place of log σ", "ray-project/ray#6393"),
    "mask_forgotten": ("log_prob without the mask", "alexhernandezgarcia/gflownet#12"),
    "mask_zeroed": ("logits of 0 where the mask forbids", "hill-a/stable-baselines#505"),
    "mask_not_drawn": (
        "draws without the mask",
        "Stable-Baselines-Team/stable-baselines3-contrib#212",
    ),
    "temperature": ("draws at another temperature", "huggingface/trl#4159"),
    "exploration_forgotten": ("random exploration not in log_prob", "coleam00/Archon#821"),
    "softmax_twice": ("draws by probabilities taken as logits", "ekapolc/RL_course_2019#6"),
    "logs_as_probabilities": ("draws by logs taken as probabilities", "agiresearch/OpenAGI#33"),
    "log_forgotten": ("probabilities in place of their logarithms", "pytorch/rl#1750"),
    "log_with_epsilon": ("log(p + 1e-8)", "tensorforce/tensorforce#96"),
    "sum_forgotten": ("the sum over dimensions forgotten", "thu-ml/tianshou#40"),
    "keepdim": ("(B, 1) in place of (B,)", "pytorch/rl#1243"),
    "broadcast": ("(B, 1) against (B,), which makes (B, B)", "vwxyzjn/cleanrl#379"),
    "summed_over_batch": (
        "the sum over the batch as well",
        "PacktPublishing/Tensorflow-2-Reinforcement-Learning-Cookbook#46",
    ),
    "clipped": (
        "clipped actions, density before clipping",
        "dennybritz/reinforcement-learning#110",
    ),
}
FORMS = {
    name: Form(
        name, text, f"https://github.com/{source.replace('#', '/issues/')}", kind, errors[name]
    )
    for kind, errors in ERRORS.items()
    for name, (text, source) in FOUND.items()
    if name in errors
}
