"""Formulas in the form of which a compiler makes the best code.

The eager forms stand where these are called, and both agree up to rounding.
"""

import functools

import torch
from torch import Tensor

NARROW = 4  # inputs of a layer, up to which a library's product costs more than the sum


def product(left: Tensor, right: Tensor) -> Tensor:
    """(*, B, inputs) x (*, inputs, outputs) -> (*, B, outputs), to be compiled.

    With one row, few inputs or one output it is a sum, which becomes a part of the loops around it:
    calling a library for so little takes several times as long as the arithmetic.
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
    """Euclidean norm of all together, 0-d; plain reductions are fused with their neighbours."""
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
    """A step of Adam as formulas, unless the 0-d bool `skip` is up; moments are (means, squares).

    The bias correction (2,) comes from the step before: a compiler takes a formula of 0-d tensors
    into the loop over the weights, where their powers cost more than all else.
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
