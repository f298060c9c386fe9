"""Masks of actions: each stands in the observation that it belongs to, and is obeyed everywhere."""

import json
import re
from contextlib import closing
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import evaluate
import policies
import train
from common.errors import ConfigError, EnvironmentFault
from configs.compose import train_config
from envs.envs import Envs
from envs.masks import ActionMask
from envs.spaces import Mask, require_same_spaces, with_mask
from runtime.build import example, make_parts
from runtime.exactness import before_training
from runtime.launch.door import enter
from tests.helpers import Picture, agent
from tools import doctor, export

HERE = "tests.envs.test_masks"
LENGTH = 5
SIZES = {"one": (4,), "several": (2, 3), "binary": (2, 2)}
KINDS = {"one": spaces.Discrete(4, start=1), "several": spaces.MultiDiscrete([2, 3]),
         "binary": spaces.MultiBinary(2)}  # fmt: skip
learn = partial(enter, "train", train.run)
play = partial(enter, "evaluate", evaluate.run)


class Gates(gymnasium.Env):
    """Observation: (step, number); permitted are the actions whose bits are set in the number.

    At any other action it raises. After the last step of an episode nothing is permitted.
    """

    def __init__(
        self,
        form="info",
        kind="one",
        ends="terminated",
        rows=False,
        spoiled=None,
        drifts=0,
        length=LENGTH,
    ):
        self.length, self.form, self.sizes, self.ends, self.rows = (
            length,
            form,
            SIZES[kind],
            ends,
            rows,
        )
        self.action_space, self.spoiled, self.drift, self.drifts = KINDS[kind], spoiled, 0, drifts
        self.observation_space = box = spaces.Box(-1, 99, (2,), np.float32)
        if form == "dict":
            mask = spaces.Box(0.0, 1.0, (sum(self.sizes),), np.float32)
            self.observation_space = spaces.Dict({"action_mask": mask, "state": box})
        if form == "method":
            self.action_masks = self.mask

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.drift = 0, self.drift + self.drifts
        return self.seen()

    def step(self, action):
        start = getattr(self.action_space, "start", np.zeros(1))
        bits, first = np.concatenate(self.parts()), 0
        for size, one in zip(self.sizes, np.ravel(action - start), strict=True):
            if not bits[first + int(one)]:
                raise ValueError(f"{action} is forbidden by {bits}")
            first += size
        self.count += 1
        last = self.count == self.length
        obs, info = self.seen(last)
        ended = last and self.ends == "terminated"
        return obs, float(np.sum(action)) + self.drift, ended, last and not ended, info

    def seen(self, last=False):
        picked = [1 + self.np_random.integers(2**size - 1) for size in self.sizes]
        shifts = np.cumsum([0, *self.sizes[:-1]])
        self.number = int(sum(one << shift for one, shift in zip(picked, shifts, strict=True)))
        if last and self.ends == "terminated":
            self.number = 0
        obs = np.array([self.count, self.number], np.float32)
        if self.form == "dict":
            return {"state": obs, "action_mask": self.mask().astype(np.float32)}, {}
        return obs, {"action_mask": self.mask()} if self.form == "info" else {}

    def parts(self):
        bits = np.array([self.number >> k & 1 for k in range(sum(self.sizes))], np.int8)
        return np.split(bits, np.cumsum(self.sizes)[:-1])

    def mask(self):
        if self.spoiled is not None and self.count >= 2:
            return self.spoiled
        return tuple(self.parts()) if self.rows else np.concatenate(self.parts())


class Lit(Picture):
    """Permits only the side that is lit."""

    def action_masks(self):
        return np.arange(2) == self.right


def vector(num_envs, mode="NEXT_STEP", **kwargs):
    makes = [partial(Gates, "dict", length=LENGTH + i, **kwargs) for i in range(num_envs)]
    return SyncVectorEnv(makes, autoreset_mode=AutoresetMode[mode])


gymnasium.register("Gates-v0", entry_point=Gates)
gymnasium.register("Lit-v0", entry_point=Lit)
gymnasium.register("GatesVector-v0", vector_entry_point=vector)


def masks_of(obs, sizes):
    """The masks that belong to observations (N, 2 + M), from what they show."""
    bits = obs[:, 1:2].long() >> torch.arange(sum(sizes)) & 1
    bits[(bits == 0).all(1)] = 1  # at the end of an episode
    return bits


def permitted(envs, step):
    """Permitted actions (N,) or (N, D), others at each step."""
    spec, space = envs.spec, envs.backend.action_space
    start = np.asarray(getattr(space, "start", 0))
    raw = [envs.permitted(start + (step + i) % 2, row.numpy()) for i, row in enumerate(envs.obs)]
    action = torch.from_numpy(np.array(raw) - start)
    return action if spec.choices else action.flatten()


@pytest.mark.parametrize(("name", "vectorization", "kwargs"), [
    ("Gates-v0", "sync", {}),
    ("Gates-v0", "sync", {"form": "method", "kind": "several"}),
    ("Gates-v0", "sync", {"form": "dict", "kind": "binary", "ends": "truncated"}),
    ("Gates-v0", "sync", {"kind": "several", "rows": True}),
    ("Gates-v0", "async", {"form": "method"}),
    *(("GatesVector-v0", "native", {"mode": mode.name}) for mode in AutoresetMode),
])  # fmt: skip
def test_each_mask_belongs_to_its_observation(name, vectorization, kwargs):
    envs = Envs(f"{HERE}:{name}", 2, vectorization, kwargs, 0, wrappers=["ActionMask"])
    sizes = SIZES[kwargs.get("kind", "one")]
    assert envs.spec.mask == sum(sizes)
    ended = 0
    try:
        for step in range(3 * LENGTH):
            row = envs.step(*2 * [permitted(envs, step)])
            for obs in (row.obs, row.next_obs, envs.obs):
                assert torch.equal(obs[:, 2:].long(), masks_of(obs, sizes))
            ended += int(row.terminated.sum() + row.truncated.sum())
    finally:
        envs.close()
    assert ended >= 4


@pytest.mark.parametrize("among", [False, True])
def test_masks_stand_behind_images_too(among):
    kwargs = {"discrete": True, "among": among}
    envs = Envs("Lit-v0", 3, "sync", kwargs, 0, wrappers=["ActionMask"])
    config = train_config(["env.id=Lit-v0", "agent=ppo", "agent.n_steps=4", "agent.batch_size=16"])
    learners = [agent(name, envs.spec, normalise_obs=True) for name in ("ppo", "sac_discrete")]
    for learner in learners:
        for act in (learner.act, getattr(learner, "explore", learner.act)):
            row = envs.step(*act(envs.obs))
            assert (row.reward == 1).all()
            learner.learn_statistics(row.obs)
    shown = learners[0].normalizer(example(config, learners[0], None).obs)[..., -2:]
    assert set(map(tuple, shown.reshape(-1, 2).tolist())) == {(1, 0), (1, 1)}


def test_a_resumed_environment_has_its_mask_again():
    def made():
        return Envs("Gates-v0", 2, "sync", {"form": "method"}, 0, wrappers=["ActionMask"])

    envs, other = made(), made()
    for step in range(7):
        envs.step(*2 * [permitted(envs, step)])
    assert other.load_state_dict(envs.state_dict())
    assert torch.equal(other.obs, envs.obs)
    action = permitted(envs, 0)
    for one, same in zip(other.step(action, action), envs.step(action, action), strict=True):
        assert torch.equal(one, same)


@pytest.mark.parametrize(("spoiled", "why"), [
    (np.zeros(4), r"action_mask \[0. 0. 0. 0.\] permits no action in environment 0 at step 2"),
    (np.ones(3), r"action_mask has shape \(3,\); these actions need \(4,\)"),
    (np.array([1, 2, 0, 1]), r"action_mask is \[1 2 0 1\] of int64, not of 0 and 1"),
    (np.array(["a"] * 4), r"action_mask is \['a' 'a' 'a' 'a'\] of <U1, not of 0 and 1"),
    (1, r"action_mask has shape \(\)"),
])  # fmt: skip
def test_a_mask_that_cannot_be_is_the_fault_of_the_environment(spoiled, why):
    envs = Envs("Gates-v0", 1, "sync", {"spoiled": spoiled}, 0, wrappers=["ActionMask"])
    envs.step(*2 * [permitted(envs, 0)])
    action = permitted(envs, 1)
    with pytest.raises(EnvironmentFault, match=f"^env Gates-v0: {why}.*; fix the environment$"):
        envs.step(action, action)


def test_every_choice_needs_a_permitted_action():
    kwargs = {"kind": "several", "spoiled": [0, 0, 1, 1, 1]}
    envs = Envs("Gates-v0", 1, "sync", kwargs, 0, wrappers=["ActionMask"])
    envs.step(*2 * [permitted(envs, 0)])
    action = permitted(envs, 1)
    with pytest.raises(EnvironmentFault, match="permits no action"):
        envs.step(action, action)


def test_a_mask_is_read_from_every_form_and_from_no_other():
    several = Mask((2, 3))
    for given in ([1, 0, 1, 1, 0], (np.array([1, 0]), [1, 1, 0]), np.array([1.0, 0, 1, 1, 0])):
        assert several.row(given).tolist() == [1, 0, 1, 1, 0]
    assert Mask((2, 2)).row(np.eye(2, dtype=bool)).tolist() == [1, 0, 0, 1]
    for wrong in (([1, 0, 1], [1, 0]), np.ones((2, 3)), [0.5] * 5, None):
        with pytest.raises(ValueError, match=r"^action_mask"):
            several.row(wrong)


@pytest.mark.parametrize(("arguments", "why"), [
    ([], "env.wrappers: ActionMask: there is no mask, .*; leave ActionMask out"),
    (["env=pendulum"], "env.wrappers: ActionMask: masks permit single actions, these are cont"),
    (["env.vectorization=native"], "env.vectorization: native copies give .* use sync or async"),
])  # fmt: skip
def test_it_is_refused_where_it_cannot_be(arguments, why):
    config = train_config([*arguments, "env.wrappers=[ActionMask]"])
    with pytest.raises(ConfigError, match=why):
        make_parts(config)


def test_a_mask_alone_is_no_observation():
    alone = spaces.Dict({"action_mask": spaces.MultiBinary(4)})
    with pytest.raises(ConfigError, match="nothing but the mask to observe; add a part"):
        with_mask(alone, KINDS["one"])


def test_a_mask_that_was_recorded_as_numbers_is_the_same():
    """In runs of older revisions; one that was observed, and not used, came first by its name."""
    envs = Envs("Gates-v0", 1, "sync", {}, 0, wrappers=["ActionMask"])
    now = envs.spaces
    assert "'action_mask': Mask([4])" in now["observation"]
    old = {**now, "observation": now["observation"].replace("Mask([4])", "MultiBinary((4,))")}
    require_same_spaces("Gates-v0", old, now)
    other = {**now, "observation": now["observation"].replace("Mask([4])", "MultiBinary((5,))")}
    with pytest.raises(ConfigError, match="its observation space is"):
        require_same_spaces("Gates-v0", other, now)
    envs.close()


def test_it_is_the_outermost():
    with pytest.raises(ConfigError, match=r"env.wrappers: .*; name it last"):
        train_config(["env.wrappers=[ActionMask,FlattenObservation]"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Discrete SAC, which at any forbidden action would have ended with exit code 3."""
    path = tmp_path_factory.mktemp("masked") / "run"
    given = ["agent=sac_discrete", "env.id=Gates-v0", "env.wrappers=[ActionMask]", "env.num_envs=2",
             "agent.explore_hold=3", "agent.hidden=[8]", "agent.learning_starts=100",
             "agent.batch_size=8", "total_steps=150", "eval.episodes=20",
             "eval.every=100"]  # fmt: skip
    assert learn([*given, f"run_dir={path}"]) == 0
    return path


def test_a_run_obeys_its_masks_and_so_do_its_continuation_and_its_file(run, tmp_path, capsys):
    assert learn([f"resume={run}", "total_steps=200"]) == 0
    assert json.loads((run / "result.json").read_text())["exact"] is True
    assert play([f"run={run}", "episodes=20", "deterministic=false", f"out={tmp_path}"]) == 0
    assert export.main([f"run={run}", "episodes=20", f"out={tmp_path / 'policy.onnx'}"]) == 0
    file = [f"policy={tmp_path / 'policy.onnx'}", "env.id=Gates-v0", "episodes=20"]
    capsys.readouterr()
    assert play([*file, "env.wrappers=[ActionMask]"]) == 0
    capsys.readouterr()
    assert play(file) == 2
    assert 'give "env.wrappers=[ActionMask]", named last' in capsys.readouterr().err
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "policy.onnx")
    given = {"obs": np.zeros((4, 2), np.float32), "action_mask": np.eye(4, dtype=np.float32)}
    assert session.run(None, given)[0].tolist() == [1, 2, 3, 4]
    policy = policies.load(run)
    for number in range(4):
        mask = np.arange(4) == number
        for obs in ({"observation": [0, 1 << number], "action_mask": mask}, [0, 1, *mask]):
            assert policy(obs) == number + 1
    with pytest.raises(ValueError, match="action_mask permits no action; give 1 for"):
        policy({"observation": [0, 0], "action_mask": np.zeros(4)})
    for bare in ([0, 0], {"observation": [0, 0]}):
        with pytest.raises(ValueError, match=r"=\[ActionMask\]; give .* envs\.masks\.ActionMask$"):
            policy(bare)
    env = ActionMask(gymnasium.make("Gates-v0"))
    assert policy(env.reset(seed=0)[0]) in range(1, 5)


def test_masks_that_are_not_used_are_named(capsys):
    config = train_config(["env.id=Gates-v0", "agent=ppo", "agent.n_steps=64"])
    make_parts(config).close()
    assert capsys.readouterr().err == (
        "warning: env Gates-v0: it gives masks of its actions, and they are not used; "
        '"env.wrappers=[ActionMask]", named last, uses them\n'
    )


def test_the_doctor_plays_by_the_mask(capsys):
    given = ["env.id=Gates-v0", "steps=60"]
    assert doctor.main(given) == 3
    assert capsys.readouterr().err.endswith('it gives; give "env.wrappers=[ActionMask]"\n')
    assert doctor.main([*given, "trace=true", "env.wrappers=[ActionMask]"]) == 0
    with closing(Envs("Gates-v0", 1, "sync", {}, 0, wrappers=["ActionMask"])) as envs:
        doctor.observations(envs, doctor.play(envs, 60, 0))
    told = capsys.readouterr().out
    assert float(re.search(r"deviations from (\S+) to", told)[1]) > 1.0  # a mask's is at most 0.5
    for seed in range(6):
        made = partial(Envs, "Gates-v0", 1, "sync", {}, seed, wrappers=["ActionMask"])
        doctor.handed_over(made, seed)


def test_the_doctor_writes_the_wrapper_that_it_advises(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(doctor, "repeats", lambda _, arguments, *more: asked.append(arguments))
    (tmp_path / "env").mkdir()
    own = tmp_path / "env/my_taxi.yaml"
    own.write_text("id: Taxi-v4\nkwargs: {is_rainy: true}\nwrappers: [FlattenObservation]\n")
    given = ["env=my_taxi", "steps=60", "--config-dir", str(tmp_path)]
    assert doctor.main(given) == 0
    told, head, text = capsys.readouterr().out.split("\n\n")
    assert '"env.wrappers=[FlattenObservation,ActionMask]" (masks of the actions, info)' in told
    assert head == f"{own}, for env=my_taxi:"
    own.write_text(text)
    assert doctor.main(given) == 0
    assert "ActionMask" not in re.search(r"advice .*|$", capsys.readouterr().out)[0]
    assert asked == [given, given]  # for a second process, which finds the folder, too


def test_an_episode_is_repeated_by_the_mask():
    """One that does not repeat is found, where a forbidden action would have ended the look."""
    for drifts in (False, True):
        kwargs = {"kind": "several", "drifts": drifts}
        envs = Envs("Gates-v0", 2, "sync", kwargs, 0, wrappers=["ActionMask"])
        assert (before_training(envs, 0) is not None) == drifts
