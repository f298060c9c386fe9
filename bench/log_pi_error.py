"""usage: python bench/log_pi_error.py

The error of `TanhGaussian`'s log_pi against 50-digit arithmetic.

8,526 points, mean in [-50, 50], log_std in [-20, 2], noise in [-6, 6], beside the usual forms.
"""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main(arguments: list[str]) -> int:
    """Prints a Markdown table; returns 0 if the bounds of docs/results.md hold."""
    if arguments:
        print(__doc__)
        return 0 if "--help" in arguments else 2
    try:
        import mpmath
    except ImportError:
        print('error: mpmath: is not installed; pip install ".[dev]"', file=sys.stderr)
        return 2
    import numpy as np
    import torch

    from policies import TanhGaussian

    mpmath.mp.dps = 50
    axes = np.linspace(-50, 50, 29), np.linspace(-20, 2, 14), np.linspace(-6, 6, 21)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)
    exact = np.array([reference(mpmath, *map(float, point)) for point in grid])

    print("| form | type | log_pi | d/dmean | d/dlog_std | not finite |\n|---|---|---|---|---|---|")
    worst: dict[str, list[float]] = {}
    for dtype in (torch.float32, torch.float64):
        for form in ("ours", "log(1 - a^2 + 1e-6), scored from (u - mean) / std"):
            mean, log_std, noise = torch.tensor(grid).to(dtype).split(1, dim=1)
            mean, log_std = mean.clone().requires_grad_(), log_std.clone().requires_grad_()
            if form == "ours":
                log_pi = TanhGaussian(mean, log_std).rsample_with_log_prob(noise)[1]
            else:
                u = mean + log_std.exp() * noise
                base = torch.distributions.Normal(mean, log_std.exp()).log_prob(u)
                log_pi = (base - torch.log(1 - torch.tanh(u) ** 2 + 1e-6)).sum(-1)
            slopes = torch.autograd.grad(log_pi.sum(), [mean, log_std])
            found = torch.stack([log_pi.detach(), *(s[:, 0] for s in slopes)], 1).double().numpy()
            error = np.abs(found - exact) / np.maximum(1, np.abs(exact))
            finite = np.isfinite(found)
            worst[f"{form} {dtype}"] = [*np.nanmax(error, axis=0), (~finite).sum()]
            cells = [f"{value:.2g}" for value in np.nanmax(np.where(finite, error, 0), axis=0)]
            print(f"| {form} | {str(dtype)[6:]} | {' | '.join(cells)} | {(~finite).sum()} |")
    single, double = worst["ours torch.float32"], worst["ours torch.float64"]
    print(f"\n{len(grid):,} points; error / max(1, |exact|), largest")
    return int(not (single[0] <= 1e-5 and max(single[1:3]) <= 2e-5 and double[0] <= 1e-12
                    and single[3] == double[3] == 0))  # fmt: skip


def reference(mp, mean: float, log_std: float, noise: float) -> tuple[float, float, float]:  # type: ignore[no-untyped-def]
    """log_pi and its derivatives by mean and log_std, to 50 digits."""
    spread = mp.exp(log_std) * noise
    u = mean + spread
    log_cosh = abs(u) - mp.log(2) + mp.log1p(mp.exp(-2 * abs(u)))
    log_pi = -(mp.mpf(noise) ** 2) / 2 - log_std - mp.log(2 * mp.pi) / 2 + 2 * log_cosh
    slope = 2 * mp.tanh(u)
    assert math.isfinite(float(log_pi))
    return float(log_pi), float(slope), float(-1 + slope * spread)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
