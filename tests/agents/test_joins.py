"""What the parts of an agent hand to each other, for every agent: each join by its behaviour."""

import copy
import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from agents import AGENTS, make_agent
from common import tree
from common.seeding import stream
from configs.agents import AGENT_GROUPS, Policy
from data import Replay, Rollout, Spec
from envs.envs import Envs
from envs.spaces import ActionMap
from networks.actor_critic import Critic, Value, torso
from networks.encoder import Encoder
from networks.layers import ACTIVATIONS, EnsembleLinear, EnsembleNorm, Linear
from networks.normalizer import Pixels, RunningNorm, SomePixels
from policies import POLICIES
from runtime.audits import at_states
from tests.helpers import agent, batch, saved_and_read, settings

DISCRETE, CONTINUOUS = Spec(3, 4, discrete=True), Spec(3, 2, discrete=False)
SEVERAL = Spec(3, 4, True, (4, 2))
AMONG = Spec(10, 2, False, images=((3, (2, 3, 1)),), bytes=((3, 9),))
PASSES = {"epochs": 2, "batch_size": 10}
KINDS = {
    "a2c": ("a2c", DISCRETE, {}),
    "a2c gaussian": ("a2c", CONTINUOUS, {"shared_torso": True}),
    "a2c tanh": (
        "a2c",
        CONTINUOUS,
        {"policy": "tanh_full_gaussian", "log_std": "state", "reward_scale": "auto"},
    ),
    "ppo several": ("ppo", SEVERAL, {**PASSES, "reward_scale": "auto"}),
    "ppo": ("ppo", CONTINUOUS, {**PASSES, "recompute_advantage": True}),
    "sac": ("sac", CONTINUOUS, {"policy_delay": 2, "reward_scale": "auto"}),
    "sac average": ("sac", CONTINUOUS, {"actor_tau": 0.3, "atoms": 7}),
    "sac_discrete": ("sac_discrete", DISCRETE, {"actor_tau": 0.3, "reward_scale": "auto"}),
}
ON_POLICY = [kind for kind, (name, _, _) in KINDS.items() if AGENT_GROUPS[name].on_policy]
OFF_POLICY = [kind for kind in KINDS if kind not in ON_POLICY]


def made(kind, **changes):
    name, spec, own = KINDS[kind]
    return agent(name, spec, **{**own, **changes})


def experience(kind, seed=0):
    """What one update of that agent learns from, around 5 with deviation 3."""
    spec = KINDS[kind][1]
    data = batch(*((5, 4) if kind in ON_POLICY else (8,)), spec=spec, seed=seed)
    if spec.choices:
        several = torch.stack([data.action % choices for choices in spec.choices], -1)
        data = data._replace(action=several, latent=several)
    return data._replace(obs=5 + 3 * data.obs, next_obs=5 + 3 * data.next_obs)


def draws(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def weights(learner):
    """All that is learned, but for the normaliser."""
    modules = learner.state_dict()["modules"]
    return tree.digest({name: state for name, state in modules.items() if name != "normalizer"})


def assert_same_metrics(one, other):
    assert set(one) == set(other)
    for name in one:
        assert torch.equal(one[name].nan_to_num(9e9), other[name].nan_to_num(9e9)), name
        assert not one[name].requires_grad, name


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_on_raw_observations_are_none_on_prepared_ones(kind):
    raw, plain = made(kind, normalise_obs=True), made(kind)
    raw.normalizer.update(experience(kind, seed=9).obs.flatten(0, -2))
    norm = copy.deepcopy(raw.normalizer)
    for learner in (raw, plain):  # away from the first weights, whose policy is nearly constant
        with torch.no_grad():
            for number, parameter in enumerate(learner.actor.parameters()):
                parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(number))
    for seed in range(1 if kind in ON_POLICY else 2):  # then statistics of a rollout are taken in
        data = experience(kind, seed)
        prepared = data._replace(obs=norm(data.obs), next_obs=norm(data.next_obs))
        obs, seen = data.obs.flatten(0, -2), prepared.obs.flatten(0, -2)
        for deterministic in (False, True):
            pairs = zip(raw.act(obs, deterministic), plain.act(seen, deterministic), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
        found = [
            at_states(learner, rows[:2], torch.Generator().manual_seed(0))
            for learner, rows in ((raw, obs), (plain, seen))
        ]
        assert len(found[0]) == 2
        for ours, theirs in zip(*found, strict=True):
            assert (ours.pit_ks, ours.trials) == (theirs.pit_ks, theirs.trials)
        assert_same_metrics(raw.update(data), plain.update(prepared))
        assert weights(raw) == weights(plain)


@pytest.mark.parametrize("kind", ["sac average", "sac_discrete"])
def test_the_average_of_an_actor_plays_and_the_actor_draws_and_is_audited(kind):
    learner = made(kind)
    obs, noise = draws(8, 3), torch.ones(8, *learner.spec.noise_shape)

    def made_of(learner=learner):
        findings = at_states(learner, obs[:1], torch.Generator().manual_seed(0))
        return {
            "played": learner.act(obs, deterministic=True)[0],
            "drawn": learner.draw(obs, noise)[1],
            "audited": torch.tensor(
                [float(found.curves[0].draws.double().mean()) for found in findings]
            ),
        }

    for name, moved in (("actor_average", {"played"}), ("actor", {"drawn", "audited"})):
        before = made_of()
        with torch.no_grad():
            for number, parameter in enumerate(learner.modules[name].parameters()):
                parameter.normal_(generator=torch.Generator().manual_seed(number))
        after = made_of()
        assert {what for what in after if not torch.equal(before[what], after[what])} == moved


@pytest.mark.parametrize("kind", KINDS)
def test_each_fresh_observation_is_counted_once(kind):
    """Off-policy as it is collected, on-policy after the update; the next ones not before."""
    learner, data = made(kind, normalise_obs=True), experience(kind)
    learner.observe(data)
    if kind in ON_POLICY:
        assert learner.normalizer.seen_count == 0
    else:
        assert torch.allclose(learner.normalizer.mean, data.obs.mean(0))
    learner.update(data)
    assert learner.normalizer.seen_count.item() == data.reward.numel()
    assert torch.allclose(learner.normalizer.mean, data.obs.flatten(0, -2).mean(0))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_taken_in_after_a_divergence(kind):
    learner, data = made(kind, normalise_obs=True), experience(kind)
    learner.observe(data)
    learner.update(data)
    before = tree.digest(saved_and_read(learner.state_dict()["modules"]))
    learner.update(data._replace(reward=data.reward * torch.nan))
    assert learner.optimizer.diverged
    for again in (experience(kind, 1), experience(kind, 2)):
        learner.observe(again)
        learner.update(again)
    assert tree.digest(learner.state_dict()["modules"]) == before


@pytest.mark.parametrize("kind", KINDS)
def test_each_action_is_a_draw_of_its_own_from_the_stream_of_acting(kind):
    learner, same, obs = made(kind), made(kind), torch.zeros(64, 3)
    update = learner.generators["update"].get_state()
    assert not torch.equal(update, learner.generators["act"].get_state())
    first, second = learner.act(obs)[1], learner.act(obs)[1]
    assert not torch.equal(first, second)
    assert not torch.equal(first[:32], first[32:])
    assert torch.equal(learner.generators["update"].get_state(), update)
    # Another generator, and no draw, leave that stream where it is; so do updates.
    given = [learner.act(obs, generator=torch.Generator().manual_seed(5))[1] for _ in range(2)]
    assert torch.equal(*given)
    assert torch.equal(*(learner.act(obs, deterministic=True)[0] for _ in range(2)))
    same.act(obs[:7])  # another number of rows
    acting = same.generators["act"].get_state()
    same.update(experience(kind))
    assert torch.equal(same.generators["act"].get_state(), acting)
    fresh = made(kind)
    fresh.act(obs), fresh.act(obs)
    assert torch.equal(learner.act(obs)[1], fresh.act(obs)[1])
    assert [len(part) for part in learner.act(obs[:7])] == [7, 7]


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_goes_on_to_the_bit_in_an_agent_made_otherwise(kind):
    """Of another seed and horizon; in the middle of a held action."""
    given = {"normalise_obs": True, "lr_schedule": "linear"}
    given |= {"explore_hold": 4} if kind in OFF_POLICY else {}
    first = made(kind, horizon=9, **given)
    other = made(kind, horizon=50, seed=1, **given)
    obs = experience(kind, 9).obs.flatten(0, -2)[:8]
    for seed in range(3):
        first.observe(experience(kind, seed))
        first.update(experience(kind, seed))
    names = ("act", "explore") if kind in OFF_POLICY else ("act",)
    for _ in range(2):
        for name in names:
            getattr(first, name)(obs)
    other.load_state_dict(saved_and_read(first.state_dict()))
    assert tree.digest(other.state_dict()) == tree.digest(first.state_dict())
    for seed in range(3, 6):
        data = experience(kind, seed)
        for learner in (first, other):
            learner.observe(data)
        told = [learner.update(data) for learner in (first, other)]
        assert_same_metrics(*told)
        for name in names:
            ours, theirs = (getattr(learner, name)(obs)[0] for learner in (first, other))
            assert torch.equal(ours, theirs), name
        assert torch.equal(*(learner.act(obs, True)[0] for learner in (first, other)))
    assert other.optimizer.lr.item() == pytest.approx(first.optimizer.base_lr * (1 - 5 / 9))
    first.optimizer.diverged.fill_(True)
    other.load_state_dict(first.state_dict())
    assert other.optimizer.diverged


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_of_each_update_is_that_of_its_schedule(kind):
    constant = made(kind, lr=1e-3, lr_schedule="constant")
    linear = made(kind, lr=1e-3, lr_schedule="linear", horizon=4)
    told = [[learner.update(experience(kind))["train/lr"] for _ in range(3)]
            for learner in (constant, linear)]  # fmt: skip
    assert [float(lr) for lr in told[0]] == pytest.approx([1e-3] * 3)
    assert [float(lr) for lr in told[1]] == pytest.approx([1e-3, 7.5e-4, 5e-4])


@pytest.mark.parametrize("kind", KINDS)
def test_each_group_is_clipped_to_the_norm_that_is_set(kind):
    """The first mean of gradients is a tenth of the gradient that was used."""
    epochs = {"epochs": 1, "batch_size": 20} if kind.startswith("ppo") else {}
    for most in (1e-3, 1e3, None):
        learner = made(kind, max_grad_norm=most, **epochs)
        metrics = learner.update(experience(kind))
        for name, (means, _) in learner.state_dict()["optimizer"]["moments"].items():
            used = 10 * torch.cat([mean.flatten() for mean in means]).norm().item()
            norm = metrics[f"grad_norm/{name}"].item()
            assert 1e-3 < norm < 1e3
            assert used == pytest.approx(1e-3 if most == 1e-3 else norm, rel=0.01), name


@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_a_squashed_action_is_scored_by_its_latent(name):
    """So the action itself does not matter: where it is 1, its latent would be lost."""
    learner = agent(name, CONTINUOUS, policy="tanh_gaussian", **(PASSES if name == "ppo" else {}))
    data = batch(5, 4, spec=CONTINUOUS)
    latent = 12 * data.latent
    losses = []
    for action in (latent.tanh(), torch.zeros_like(latent)):
        rollout = data._replace(action=action, latent=latent)
        if name == "ppo":
            parts = (rollout.obs, action, latent, *learner.evaluate_rollout(rollout))
            losses.append(learner.losses(*(part.flatten(0, 1) for part in parts)))
        else:
            losses.append(learner.losses(rollout))
    (one, told), (two, again) = losses
    assert one["actor"].isfinite()
    assert torch.equal(one["actor"], two["actor"])
    for term in ("ledger/gaussian", "ledger/scale", "ledger/jacobian"):
        assert torch.equal(told[term], again[term])
    assert told["ledger/gaussian"].isfinite().all()


@pytest.mark.parametrize(("share", "stops"), [(1.4, False), (1.6, True)])
def test_passes_end_beyond_one_and_a_half_times_the_target(share, stops):
    data, shift = batch(5, 4, spec=DISCRETE), 0.1
    kl = math.expm1(shift) - shift
    learner = agent("ppo", DISCRETE, target_kl=kl / share)
    advantage, target, log_prob = learner.evaluate_rollout(data)
    parts = (data.obs, data.action, data.latent, advantage, target, log_prob - shift)
    learner.step(*(part.flatten(0, 1) for part in parts))
    assert bool(learner.stopped) == stops


def test_rows_of_a_minibatch_stay_together_and_keep_the_density_they_were_drawn_with():
    learner = agent("ppo", CONTINUOUS, epochs=2, batch_size=5, lr=1e-2)
    data = batch(5, 4, spec=CONTINUOUS)
    known = [
        part.flatten(0, 1) for part in (data.action, data.latent, *learner.evaluate_rollout(data))
    ]
    rows = {tuple(obs.tolist()): place for place, obs in enumerate(data.obs.flatten(0, 1))}
    for obs, *others in learner.minibatches(data):
        places = [rows[tuple(row.tolist())] for row in obs]
        for found, wanted in zip(others, known, strict=True):
            assert torch.equal(found, wanted[places])
        learner.step(obs, *others)


@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_each_sample_counts_once_in_the_scale_of_advantages(name):
    """Standardised over steps and environments together, and not by environment."""
    learner = agent(name, DISCRETE, ent_coef=0.0, value_coef=0.0, gae_lambda=0.0, gamma=0.0)
    nn.init.zeros_(learner.critic.head.weight)
    data = batch(5, 4, spec=DISCRETE)
    data = data._replace(reward=data.reward + 100.0 * torch.arange(4))
    advantage = (data.reward - data.reward.mean()) / data.reward.std(correction=0)
    log_prob = learner.policy(data.obs).log_prob(data.action)
    if name == "a2c":
        losses, _ = learner.losses(data)
    else:
        parts = (data.obs, data.action, data.latent, *learner.evaluate_rollout(data))
        losses, _ = learner.losses(*(part.flatten(0, 1) for part in parts))
        log_prob = log_prob - log_prob.detach() + 1.0  # the ratio, with its gradient
    assert losses["actor"].item() == pytest.approx(-(advantage * log_prob).mean().item(), abs=1e-5)


def test_the_critic_learns_where_there_is_no_policy_gradient():
    """Its group descends the value loss, also on a torso of its own."""
    for name in [name for name in AGENTS if AGENT_GROUPS[name].on_policy]:
        learner = agent(name, CONTINUOUS, value_coef=0.5, ent_coef=0.0)
        before = [parameter.clone() for parameter in learner.critic.parameters()]
        learner.update(batch(32, 4, spec=CONTINUOUS))
        after = list(learner.critic.parameters())
        assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        still = agent(name, CONTINUOUS, value_coef=0.0)
        before = [parameter.clone() for parameter in still.critic.parameters()]
        still.update(batch(32, 4, spec=CONTINUOUS))
        assert all(
            torch.equal(a, b) for a, b in zip(before, still.critic.parameters(), strict=True)
        )


@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_the_bounds_of_the_options_reach_the_networks(name):
    bounds = {"log_std_min": -3.0, "log_std_max": -1.0, "log_std_init": -1.5}
    for bound in ("clamp", "smooth"):
        learner = agent(name, CONTINUOUS, log_std="state", log_std_bound=bound, **bounds)
        assert torch.allclose(learner.actor(torch.zeros(1, 3))[1], torch.tensor(-1.5))
        just_outside = -1.0 if bound == "clamp" else -2.0 + math.tanh(2.0)
        for raw, found in ((99.0, -1.0), (-99.0, -3.0), (0.0, just_outside)):
            nn.init.zeros_(learner.actor.log_std.weight)
            nn.init.constant_(learner.actor.log_std.bias, raw)
            log_std = learner.actor(torch.zeros(1, 3))[1].tolist()
            assert log_std[0] == pytest.approx([found] * 2, abs=1e-3)
    far = 1e3 * torch.ones(1, 3)
    for bounded in (True, False):
        learner = agent(name, CONTINUOUS, bounded_value=bounded, activation="relu")
        with torch.no_grad():
            learner.critic.head.bias.fill_(7.0)
            learner.critic.head.weight.zero_()
        assert (learner.critic(far).abs().item() <= 1.0) == bounded
    rows = torch.tensor([[1.0], [10.0], [0.01]])
    learner = agent(name, CONTINUOUS, unit_obs=True)
    obs = draws(3, 3)
    for module in (learner.critic, lambda seen: learner.actor(seen)[0]):
        assert torch.allclose(module(obs), module(rows * obs), atol=1e-6)


def wide(name, spec=AMONG, **changes):
    """An agent whose layers have other numbers of inputs than of outputs."""
    chosen = replace(settings(name, **changes), hidden=[9, 40])
    return make_agent(spec, chosen, lambda key: stream(0, key), 10)


def layers(module):
    """(layer, weight with its inputs last) of every layer below."""
    for layer in module.modules():
        if isinstance(layer, EnsembleLinear):
            yield layer, layer.weight.mT
        elif isinstance(layer, nn.Linear | nn.Conv2d):
            yield layer, layer.weight.flatten(1)


@pytest.mark.parametrize(
    "changes", [{}, {"policy": "tanh_full_gaussian", "normalise_critic": True}]
)
def test_first_weights_of_sac_are_uniform_within_one_by_the_root_of_their_inputs(changes):
    learner = wide("sac", log_std_init=-1.0, **changes)
    assert learner.act(torch.zeros(2, 10))[0].shape == (2, 2)
    found = 0
    for module in (learner.actor, learner.critic):
        for layer, weight in layers(module):
            bound = weight.shape[-1] ** -0.5
            assert 0.8 * bound < weight.abs().max() <= bound
            assert weight.mean().abs() < 6 * bound / math.sqrt(3 * weight.numel())
            bias = 0.0 if layer is not getattr(learner.actor, "log_std", None) else -1.0
            assert torch.equal(layer.bias, torch.full_like(layer.bias, bias))
            found += 1
    assert found == 7 + 6  # an encoder has three
    first = [weight for layer, weight in layers(learner.critic) if weight.ndim == 3]
    assert not any(torch.equal(*weight) for weight in first)  # members differ


@pytest.mark.parametrize("name", ["a2c", "ppo"])
@pytest.mark.parametrize(
    ("spec", "changes", "heads"),
    [
        (DISCRETE, {}, 1),
        (SEVERAL, {}, 1),
        (CONTINUOUS, {"log_std": "state"}, 2),
        (CONTINUOUS, {"policy": "full_gaussian", "log_std": "parameter"}, 1),
    ],
)
def test_first_weights_of_a2c_and_ppo_are_orthogonal_with_their_gains(name, spec, changes, heads):
    learner = wide(name, spec, **changes)
    assert len(learner.act(torch.zeros(2, 3))[0]) == 2
    body = {id(layer) for layer, _ in layers(learner.actor.torso)}
    gains = {"torso": [], "head": []}
    for layer, weight in layers(learner.actor):
        gains["torso" if id(layer) in body else "head"].append(torch.linalg.svdvals(weight))
    assert (len(gains["torso"]), len(gains["head"])) == (2, heads)
    for part, gain in (("torso", math.sqrt(2.0)), ("head", 0.01)):
        for values in gains[part]:
            assert values.tolist() == pytest.approx([gain] * len(values), rel=1e-4)
    *inner, last = (torch.linalg.svdvals(weight) for _, weight in layers(learner.critic))
    assert last.tolist() == pytest.approx([1.0])
    assert torch.cat(inner).tolist() == pytest.approx([math.sqrt(2.0)] * 12, rel=1e-4)


def by_hand(inputs, parameters, activation, norm=False):
    """Layers (weight, bias) in order, each but the last followed by its norm and activation."""
    parameters = list(parameters)
    while parameters:
        weight, bias, *parameters = parameters
        inputs = inputs @ (weight.mT if weight.ndim == 2 else weight) + bias
        if parameters and norm:
            scale, shift, *parameters = parameters
            inputs = nn.functional.layer_norm(inputs, inputs.shape[-1:]) * scale + shift
        inputs = ACTIVATIONS[activation]()(inputs) if parameters else inputs
    return inputs


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_networks_are_their_layers_in_order(activation):
    generator = torch.Generator().manual_seed(0)
    obs, action = draws(5, 4), draws(5, 2, seed=1)
    body = torso(4, [8, 6], activation, generator)
    value = Value(body, Linear(6, 1, generator))
    with torch.no_grad():
        for parameter in value.parameters():
            parameter.normal_(generator=generator)
    exact = by_hand(obs, value.parameters(), activation)[:, 0]
    assert torch.allclose(value(obs), exact, atol=1e-5)
    for norm in (False, True):
        critics = (
            (Critic(2, 4, 2, [8, 6], activation, generator, norm), (obs, action)),
            (Critic(2, 4, 0, [8, 6], activation, generator, norm, outputs=3), (obs,)),
        )
        for critic, inputs in critics:
            with torch.no_grad():
                for parameter in critic.parameters():
                    parameter.normal_(generator=generator)
            exact = by_hand(torch.cat(inputs, -1), critic.parameters(), activation, norm)
            assert torch.allclose(critic(*inputs), exact.squeeze(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(4, 6, 3), (40, 36, 1)])
def test_an_encoder_is_its_layers_in_order(shape):
    encoder = Encoder(shape, torch.Generator().manual_seed(0))
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    seen = images.movedim(-1, 1)
    kinds = [(4, 0), (2, 0), (1, 0)] if shape[0] > 36 else [(1, 1), (1, 1)]
    weights_ = [p for name, p in encoder.named_parameters() if name.startswith("layers")]
    for (stride, padding), weight, bias in zip(kinds, weights_[::2], weights_[1::2], strict=True):
        seen = nn.functional.conv2d(seen, weight, bias, stride, padding).relu()
    seen = nn.functional.linear(seen.flatten(1), encoder.last.weight, encoder.last.bias)
    variance, mean = torch.var_mean(seen, -1, correction=0, keepdim=True)
    exact = ((seen - mean) / (variance + 1e-5).sqrt()).tanh()
    assert torch.allclose(encoder(images.flatten(1)), exact, atol=1e-4)
    assert encoder(images.flatten(1)).std() > 0.3


def test_what_observations_go_through_first_is_chosen_by_their_kind():
    picture = Spec(6, 2, False, images=((0, (2, 3, 1)),), pixels=True)
    for spec, kind in ((CONTINUOUS, nn.Identity), (AMONG, SomePixels), (picture, Pixels)):
        assert type(agent("sac", spec).normalizer) is kind
    raw = agent("sac", AMONG, normalise_obs=True)
    assert type(raw.normalizer) is RunningNorm
    obs = torch.full((5, 10), 51.0) + torch.arange(5.0)[:, None]
    raw.observe(batch(5, spec=AMONG)._replace(obs=obs))
    assert torch.allclose(raw.normalizer(obs)[:, 3:9], obs[:, 3:9] / 255)
    with pytest.raises(ValueError, match=r"agent\.normalise_obs: bytes"):
        agent("sac", picture, normalise_obs=True)


def test_soft_targets_are_of_the_slow_critics_and_the_live_actor():
    """Not of the actor's average, and by fresh actions at the next observations."""
    for kind in OFF_POLICY:
        learner, data = made(kind, actor_tau=0.3), experience(kind)
        alpha = torch.tensor(0.1)
        noise = (torch.ones(8, 2),) if kind != "sac_discrete" else ()

        def target(learner=learner, data=data, noise=noise, alpha=alpha):
            return learner.soft_target(data, data.next_obs, *noise, alpha)

        before = target()
        for name, matters in (("critic", False), ("actor_average", False),
                              ("critic_target", True), ("actor", True)):  # fmt: skip
            with torch.no_grad():
                for parameter in learner.modules[name].parameters():
                    parameter.add_(0.5)
            assert torch.equal(target(), before) != matters, (kind, name)
            before = target()


def test_the_two_noises_of_sac_are_of_the_target_and_of_the_actor():
    learner, data, noise = made("sac", alpha_init=0.3), experience("sac"), draws(2, 8, 2)
    plain, _ = learner.losses(data, noise, True)
    for index, moved in ((0, ["critic"]), (1, ["actor", "alpha"])):
        other = noise.clone()
        other[index] += 1.0
        losses, metrics = learner.losses(data, other, True)
        assert [name for name in losses if losses[name] != plain[name]] == moved
    terms = -2 * metrics["ledger/gaussian"] - math.log(2 * math.pi)
    assert torch.allclose(other[1].square(), terms, atol=1e-5)


def test_replayed_steps_end_where_episodes_do_though_a_component_stays():
    """Observations (0, t): only the second differs from one episode to the next."""
    kwargs = {"length": 3, "ends": "truncated", "show_episode": False}
    envs = Envs("tests.helpers:Counting-v0", 2, "sync", kwargs, seed=0)
    replay = Replay(20, 64, 1, 1.0, torch.Generator().manual_seed(0))
    learner, rollout = agent("sac", envs.spec), Rollout(12)
    for _ in range(12):
        action, latent = learner.explore(envs.obs)
        transition = envs.step(action, latent)
        replay.add(transition)
        rollout.add(transition)
    envs.close()
    seen = set()
    for rows in (*(replay.sample().read() for _ in range(4)), next(rollout.batches())):
        assert torch.equal(rows.next_obs[..., 1], rows.obs[..., 1] + 1)
        assert torch.equal(rows.truncated, rows.next_obs[..., 1] == 3)
        assert not rows.terminated.any()
        seen |= set(rows.obs[..., 1].flatten().tolist())
    assert seen == {0.0, 1.0, 2.0}


def test_each_component_of_an_action_has_bounds_of_its_own():
    space = spaces.Box(np.float32([-3, 0]), np.float32([1, 10]))
    given = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [9.0, -9.0]], np.float32)
    ends = [[-3.0, 0.0], [-1.0, 5.0], [1.0, 10.0], [1.0, 0.0]]
    assert ActionMap(space)(given).tolist() == ends
    one = spaces.Box(-2.0, 6.0, (), np.float32)
    assert ActionMap(one)(np.array([[-1.0], [0.5], [3.0]])).tolist() == [-2.0, 4.0, 6.0]


@pytest.mark.parametrize("kind", OFF_POLICY)
def test_uniform_actions_come_from_the_agent_s_own_stream(kind):
    obs, found = torch.zeros(400, 3), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        learner = made(kind)
        found.append(learner.explore(obs)[0])
        assert not torch.equal(learner.explore(obs)[0], found[-1])
    assert torch.equal(*found)
    if kind == "sac_discrete":
        assert set(found[0].tolist()) == {0, 1, 2, 3}
    else:
        assert found[0].shape == (400, 2)
        assert found[0].aminmax() == pytest.approx((-1.0, 1.0), abs=0.02)
        assert found[0].T.corrcoef()[0, 1].abs() < 0.25


def test_weights_that_are_not_finite_are_refused():
    learner = made("sac")
    state = saved_and_read(learner.state_dict())
    state["modules"]["critic_target"]["layers.0.bias"][1, 0, 2] = torch.nan
    with pytest.raises(ValueError, match=r"critic_target\.layers\.0\.bias is not finite"):
        made("sac").load_state_dict(state)


def test_the_logged_entropy_is_that_of_the_first_states():
    learner, data = made("sac"), experience("sac")
    policy = learner.policy(data.obs)
    _, metrics = learner.losses(data, draws(2, 8, 2), True)
    assert metrics["policy/entropy"].item() == pytest.approx(policy.entropy().mean().item())


@pytest.mark.parametrize("name", ["sac", "sac_discrete"])
def test_the_options_of_the_critics_reach_them(name):
    spec = CONTINUOUS if name == "sac" else DISCRETE
    for critics, normalise in ((2, False), (5, True)):
        learner = agent(name, spec, critics=critics, normalise_critic=normalise)
        norms = [layer for layer in learner.critic.modules() if isinstance(layer, EnsembleNorm)]
        assert len(norms) == (2 if normalise else 0)
        assert all(len(parameter) == critics for parameter in learner.critic.parameters())


def test_several_choices_are_drawn_apart():
    """Nearly uniform at first, so that two of four are equal once in four draws."""
    learner = agent("ppo", Spec(3, 4, True, (4, 4)))
    action, _ = learner.act(torch.zeros(400, 3))
    share = (action[:, 0] == action[:, 1]).float().mean().item()
    assert share == pytest.approx(0.25, abs=0.1)  # 4.6 standard errors


@pytest.mark.parametrize("shared", [True, False])
def test_values_are_the_critic_s_on_the_torso_that_is_asked_for(shared):
    learner, obs = agent("ppo", CONTINUOUS, shared_torso=shared), draws(5, 3)
    assert torch.equal(learner.evaluate(obs)[1], learner.critic(obs))
    before = learner.critic(obs)
    for parameter in learner.actor.torso.parameters():
        parameter.data.add_(0.5)
    assert torch.equal(learner.critic(obs), before) != shared
    assert torch.equal(learner.evaluate(obs)[1], learner.critic(obs))


def test_what_is_shown_of_a_rollout_outlives_it():
    """Its arrays are used again by the next."""
    learner, data = made("a2c gaussian"), experience("a2c gaussian")
    shown, wanted = learner.update(data)["policy/action"], data.action.flatten().clone()
    data.action.zero_()
    assert torch.equal(shown, wanted)


def test_the_schema_names_the_policies_that_there_are():
    assert get_args(Policy) == ("auto", *POLICIES)
