"""The actor of Gaussians with full covariance."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.actor_critic import GaussianActor, Head


class FullGaussianActor(GaussianActor):
    """obs (*, O) -> mean (*, A), scale_tril (*, A, A), the factor L of the covariance L L^T.

    Row i of L is std_i (c_i1, ..., c_i,i-1, 1, 0, ...). std_i is as in `GaussianActor`, here the
    standard deviation of component i given those before it. The couplings c have no bounds and are
    outputs of the network or parameters, as log_std is; they start at 0, the diagonal policy.
    """

    placed: Tensor  # (A * A, A (A - 1) / 2), from couplings to entries of a matrix
    eye: Tensor  # (A * A,)

    def __init__(self, torso: nn.Module, head: Head, action_dim: int, **options: Any) -> None:
        super().__init__(torso, head, action_dim, **options)
        self.shape = (action_dim, action_dim)
        eye, below = torch.eye(action_dim).flatten(), torch.ones(self.shape).tril(-1).flatten() > 0
        self.register_buffer("eye", eye, persistent=False)
        self.register_buffer("placed", torch.eye(len(eye))[:, below], persistent=False)
        entries = self.placed.shape[1]
        self.coupling = nn.Parameter(torch.zeros(entries))
        self.coupling_weight = None
        if isinstance(self.log_std, nn.Linear):
            self.coupling_weight = nn.Parameter(torch.zeros(entries, self.log_std.in_features))

    def forward(self, obs: Tensor, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        features = self.torso(obs) if features is None else features
        mean, log_std = super().forward(obs, features)
        coupling: Tensor = self.coupling
        if self.coupling_weight is not None:
            coupling = functional.linear(features, self.coupling_weight, coupling)
        rows = functional.linear(coupling, self.placed, self.eye).unflatten(-1, self.shape)
        return mean, log_std.exp().unsqueeze(-1) * rows
