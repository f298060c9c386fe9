"""The formulas that all densities share, against 50-digit arithmetic."""

import mpmath
import pytest
import torch

from policies.gaussian import expected_log_det_tanh, log_det_tanh

mpmath.mp.dps = 50
POINTS = [0.0, 1e-4, 0.01, 0.5, 1.0, 3.0, 5.0, 7.0, 8.0, 9.0, 9.02, 12.0, 20.0, 50.0]


def exact(u):
    return -2 * mpmath.log(mpmath.cosh(mpmath.mpf(u)))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_log_det_tanh_and_its_gradient_are_exact_out_to_saturation(dtype, bound, sign):
    u = (sign * torch.tensor(POINTS, dtype=dtype)).requires_grad_()
    value = log_det_tanh(u)
    value.sum().backward()
    for point, computed, slope in zip(u.tolist(), value.tolist(), u.grad.tolist(), strict=True):
        reference = exact(point)
        assert abs(computed - reference) <= bound * max(1, abs(reference))
        assert abs(slope + 2 * mpmath.tanh(point)) <= bound


def test_the_epsilon_form_that_many_use_fails_the_same_check():
    u = torch.tensor([10.0], requires_grad=True)
    value = torch.log(1 - torch.tanh(u) ** 2 + 1e-6)
    value.sum().backward()
    assert abs(value.item() - float(exact(10.0))) > 4.7
    assert u.grad.item() == 0.0


@pytest.mark.parametrize("mean", [0.0, 0.7, -3.0])
@pytest.mark.parametrize(
    ("std", "bound"), [(0.01, 1e-7), (0.5, 1e-7), (1.0, 1e-7), (2.7, 1e-7), (7.389, 2e-3)]
)
def test_quadrature_equals_the_integral(mean, std, bound):
    def integrand(e):
        return -2 * mpmath.log(mpmath.cosh(mean + std * e)) * mpmath.npdf(e)

    with mpmath.workdps(20):
        reference = float(mpmath.quad(integrand, mpmath.linspace(-12, 12, 49)))
    mean_tensor = torch.tensor([mean], dtype=torch.float64)
    computed = expected_log_det_tanh(mean_tensor, torch.tensor([std], dtype=torch.float64)).item()
    assert abs(computed - reference) <= bound
