"""A trained policy as one file: observations of the environment in, its actions out."""

import hashlib
import json
import logging
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.base import BaseAgent
from common.errors import ConfigError, StorageFault
from configs.schema import EnvConfig, EvaluateConfig
from envs.envs import Envs
from envs.spaces import MASK, ActionMap, limits_of, require_same_spaces
from runtime.evaluation import Evaluator

INPUTS, OUTPUT = ("obs", MASK), "action"
OPSET = 20  # of ONNX: the newest that onnxruntime 1.17 plays
SUFFIXES = {".onnx": "onnx", ".pt2": "torch"}


class Deployed(nn.Module):
    """obs (B, ...) -> action (B, ...), both in the environment's own units; deterministic.

    A policy of masked actions takes the mask (B, M), float32 of 0 and 1, as a second input.
    Normaliser, network, squashing, scaling and clipping, all that lies between the two.
    """

    def __init__(self, agent: BaseAgent, to_env: ActionMap, obs_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.normalizer, self.actor = agent.normalizer, agent.deterministic_actor
        self.policy_class, self.spec = agent.policy_class, agent.spec
        self.obs_shape, self.action_shape = obs_shape, to_env.space.shape or ()
        if self.spec.discrete:
            self.start = nn.Buffer(torch.as_tensor(to_env.start, dtype=torch.int64))
            return
        self.dtype: torch.dtype = torch.from_numpy(np.zeros(0, to_env.dtype)).dtype
        wide = torch.promote_types(self.dtype, torch.float32)  # a half cannot be clamped
        numbers = (to_env.middle, to_env.half, to_env.low, to_env.high)
        self.shift, self.scale, self.low, self.high = (
            nn.Buffer(torch.as_tensor(number, dtype=wide)) for number in numbers
        )

    def forward(self, obs: Tensor, mask: Tensor | None = None) -> Tensor:
        several = obs.flatten(1) if self.obs_shape else obs[:, None]
        several = several if mask is None else torch.cat([several, mask], 1)
        parameters = self.actor(self.normalizer(several))
        action: Tensor = self.policy_class(*parameters).deterministic()
        action = action.reshape(-1, *self.action_shape)
        if self.spec.discrete:
            return action + self.start
        scaled = self.shift + self.scale * action.to(self.scale.dtype)
        return scaled.clamp(self.low, self.high).to(self.dtype)


def write(module: Deployed, path: Path, opset: int = OPSET) -> None:
    """Writes the module as ONNX or as torch's exported program, by the ending of the path.

    The format of an ONNX file is the oldest that has its `opset`, so that old runtimes read it.
    """
    module.eval()
    path.unlink(missing_ok=True)  # if it is a link, what it leads to is not written
    for library in ("torch.onnx", "onnxscript"):
        logging.getLogger(library).setLevel(logging.ERROR)  # the rest concerns no user of ours
    kind = torch.uint8 if module.spec.pixels else torch.float32
    example: tuple[Tensor, ...] = (torch.zeros(2, *module.obs_shape, dtype=kind),)
    if masked := module.spec.mask:
        example = (example[0][:, :-masked], torch.ones(2, masked))
    with torch.no_grad():
        batches = ({0: torch.export.Dim("batch")},) * len(example)
        program = torch.export.export(module, example, dynamic_shapes=batches)
    if path.suffix == ".pt2":
        torch.export.save(program, path)
        return
    try:
        import onnx.helper
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError(
            'format: onnx needs onnx and onnxscript; pip install ".[export]", or use format=torch'
        ) from None
    names: dict[str, Any] = {"input_names": INPUTS[: len(example)], "output_names": [OUTPUT]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(program, (), **names, opset_version=opset, verbose=False)
    assert made is not None
    model = made.model_proto
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    path.write_bytes(model.SerializeToString())


class FromFile:
    """The policy of a file, in the environment's own units: for an `Evaluator`.

    Args:
        path: what `write` made. A .pt2 must be one's own: torch unpickles what is in it.
        envs: those that it is to play.

    Raises:
        ConfigError: it is not such a file, what runs it is not installed, or, in `act`, the
            environment has other observations or actions.
        StorageFault: it cannot be read.
    """

    device = torch.device("cpu")

    def __init__(self, path: Path, envs: Envs) -> None:
        if not path.is_file():
            raise ConfigError(f"policy: {path} is not there; give what tools/export.py wrote")
        self.obs_shape, self.to_env = envs.obs_shape, envs.to_env
        self.read, self.mask = envs.read, envs.spec.mask
        self.run = open_onnx(path) if path.suffix == ".onnx" else open_torch(path)

    def act(
        self, obs: Tensor, deterministic: bool = True, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        try:
            rows = self.read(obs.numpy()).reshape(-1, *self.obs_shape)
            parts = np.split(rows, [-self.mask], 1) if self.mask else [rows]
            action = torch.from_numpy(self.run(*parts))
        except Exception as error:
            shape = " x ".join(map(str, self.obs_shape))
            raise ConfigError(
                f"policy: it takes other observations than this environment's "
                f"({shape}); give the one it was trained in"
            ) from error
        space, made = self.to_env.space, tuple(action.shape[1:])
        if made != space.shape or action.is_floating_point() != self.to_env.continuous:
            wrong = f"actions, {str(action.dtype).removeprefix('torch.')} of shape {made}, are"
        else:
            low, high = (torch.as_tensor(limit, dtype=action.dtype) for limit in limits_of(space))
            outside = ~((action >= low) & (action <= high)).reshape(len(action), -1).all(1)
            if not outside.any():
                return action, action
            wrong = f"action {action[outside][0].tolist()} is"
        raise ConfigError(
            f"policy: its {wrong} not of this environment's {space}; give the one it was trained in"
        )


def as_they_are(to_env: ActionMap) -> Callable[[np.ndarray], np.ndarray]:
    """The map of actions that are the environment's own already, into its kind of numbers."""
    return partial(np.asarray, dtype=to_env.space.dtype)


def certificate_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def open_file(path: Path, config: EvaluateConfig) -> tuple[FromFile, Evaluator, dict[str, Any]]:
    """The policy of a file, environments to play it in, and its certificate, {} without a true one.

    Played at the certificate's step, the episodes are those of the run's evaluation, unless the run
    steps its environment natively. Close the evaluator.

    Raises:
        ConfigError: it is no ONNX, which holds no code; the environment has other spaces than that
            it was exported from; or as `FromFile`.
    """
    if path.suffix != ".onnx":
        code = "may hold code, which torch runs as it opens it"
        raise ConfigError(
            f"policy: {path} {code if path.suffix == '.pt2' else 'is no .onnx'}; give what "
            "tools/export.py writes with format=onnx"
        )
    env_id, longest = str(config.env.id), config.max_length or "auto"
    env = EnvConfig(env_id, 1, "sync", config.env.kwargs, config.env.wrappers, timeout=60.0)
    with ExitStack() as undo:
        evaluator = Evaluator(
            env, config.episodes, config.seed, max_length=longest, render=config.render
        )
        undo.callback(evaluator.close)
        envs, certificate = evaluator.envs, read_certificate(path)
        recorded, made_in = certificate.get("spaces"), str(certificate.get("env_id", ""))
        require_same_spaces(env_id, recorded, envs.spaces, made_in)
        file = FromFile(path, envs)
        undo.pop_all()
    envs.to_env = as_they_are(envs.to_env)  # type: ignore[assignment]
    return file, evaluator, certificate


def read_certificate(path: Path) -> dict[str, Any]:
    """What `tools/export.py` wrote beside the file; {} where it is missing, or of another file."""
    try:
        found = dict(json.loads(certificate_of(path).read_text()))
        if found["sha256"] != hashlib.sha256(path.read_bytes()).hexdigest():
            return {}
        found["checkpoint_step"] = int(found["checkpoint_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found


def open_onnx(path: Path) -> Any:
    """The file as a function of arrays, run by onnxruntime."""
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError('policy: .onnx needs onnxruntime; pip install ".[export]"') from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        content = path.read_bytes()  # onnxruntime opens no name that its locale cannot write
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    except Exception as error:
        raise StorageFault(f"policy: {path} cannot be read as ONNX; export it again") from error
    return lambda *parts: session.run([OUTPUT], dict(zip(INPUTS, parts, strict=False)))[0]


def open_torch(path: Path) -> Any:
    """The file as a function of arrays, run by torch."""
    try:
        module = torch.export.load(path).module()
    except Exception as error:
        raise StorageFault(f"policy: {path} cannot be read by torch; export it again") from error
    return lambda *parts: module(*map(torch.from_numpy, parts)).detach().numpy()
