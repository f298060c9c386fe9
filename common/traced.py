"""Formulas in the form that is fastest when compiled.

The eager forms are where these are called; both agree up to rounding.
"""

import functools

import torch
from torch import Tensor

NARROW = 4  # inputs of a layer up to which a sum is faster than a library's product


def product(left: Tensor, right: Tensor) -> Tensor:
    """(*, B, inputs) x (*, inputs, outputs) -> (*, B, outputs), compiled.

    With one row, few inputs or one output it is a sum, which is fused with the loops around it; a
    call of a library would take several times as long as the arithmetic.
    """
    inputs, outputs = right.shape[-2:]
    if left.numel() == inputs:
        return (left * right.mT).sum(-1).unsqueeze(-2)
    if outputs == 1:
        return (left * right.mT).sum(-1, keepdim=True)
    if inputs <= NARROW:
        columns, rows = left.split(1, dim=-1), right.split(1, dim=-2)
        return functools.reduce(torch.add, map(torch.mul, columns, rows))
    return left @ right


def total_norm(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm of all tensors together, 0-d, from reductions that can be fused."""
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum().sqrt()


def adam(
    weights: list[Tensor],
    grads: list[Tensor],
    moments: list[list[Tensor]],
    counts: list[Tensor],
    correction: Tensor,
    lr: Tensor,
    betas: tuple[float, float],
    eps: float,
    skip: Tensor,
) -> None:
    """A step of Adam, unless the 0-d bool `skip` is true; moments are (means, squares).

    The bias corrections (2,) are computed in the step before: a compiler would compute them in the
    loop over the weights, where their powers would cost more than everything else.
    """
    (beta1, beta2), (first, second) = betas, correction.unbind()
    for weight, grad, mean, square in zip(weights, grads, *moments, strict=True):
        new_mean = mean + (1.0 - beta1) * (grad - mean)
        new_square = beta2 * square + (1.0 - beta2) * grad * grad
        step = (lr * first) * new_mean / (new_square.sqrt() * second + eps)
        weight.copy_(torch.where(skip, weight, weight - step))
        mean.copy_(torch.where(skip, mean, new_mean))
        square.copy_(torch.where(skip, square, new_square))
    for count in counts:
        count.copy_(torch.where(skip, count, count + 1.0))
