"""Trees of state, nested dicts and lists of numbers and tensors: split, joined, hashed."""

import hashlib
import json
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

LENGTH = 8  # bytes of the length of the JSON part


def split(state: Any, copy: bool = True) -> tuple[Any, dict[str, Tensor]]:
    """A tree of dicts, lists, numbers and tensors -> (the same as JSON, its tensors by name)."""
    tensors: dict[str, Tensor] = {}

    def plain(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            tensor = value.detach().cpu().contiguous()
            tensors[path] = tensor.clone() if copy else tensor
            return {"tensor": path}
        if isinstance(value, dict):
            inner = {name: plain(child, f"{path}/{name}") for name, child in value.items()}
            return {"dict": inner} if path else inner
        if isinstance(value, (list, tuple)):
            return [plain(child, f"{path}/{index}") for index, child in enumerate(value)]
        return value

    return plain(state, ""), tensors


def join(values: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `split`."""
    if isinstance(values, dict):
        if set(values) == {"tensor"}:
            return tensors[values["tensor"]]
        inner = values["dict"] if set(values) == {"dict"} else values
        return {name: join(child, tensors) for name, child in inner.items()}
    if isinstance(values, list):
        return [join(child, tensors) for child in values]
    return values


def pack(state: dict[str, Any]) -> bytes:
    """A state as bytes."""
    values, tensors = split(state)
    plain = json.dumps(values).encode()
    return len(plain).to_bytes(LENGTH, "little") + plain + save_tensors(tensors)


def unpack(content: bytes) -> dict[str, Any]:
    """The inverse of `pack`."""
    start = LENGTH + int.from_bytes(content[:LENGTH], "little")
    state: dict[str, Any] = join(json.loads(content[LENGTH:start]), load_tensors(content[start:]))
    return state


def digest(state: dict[str, Any]) -> str:
    """SHA-256 of all tensors and numbers of a state, with their names."""
    values, tensors = split(state, copy=False)
    hasher = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        hasher.update(tensor.reshape(-1).numpy().data)
    return hasher.hexdigest()
