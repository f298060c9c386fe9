"""What a checkpoint holds and this code cannot take up: one line, and which revision reads it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safetensors import SafetensorError

from common.errors import StorageFault
from storage.provenance import other_revision
from storage.sealed import Damage

UNFIT = (RuntimeError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError,
         SafetensorError)  # fmt: skip


@contextmanager
def taking_up(state: dict[str, Any]) -> Iterator[None]:
    """A state is taken up inside: StorageFault where it does not fit.

    Memory that is short is told as that, and damage, which is found while rows are read, is passed
    on.
    """
    try:
        yield
    except Damage:
        raise
    except (*UNFIT, MemoryError) as error:
        if isinstance(error, MemoryError) or "allocate" in str(error):  # torch has no kind for it
            raise StorageFault("checkpoint: there is not the memory to take it up; free some, or "
                               "use a larger machine") from error  # fmt: skip
        raise misfit(state, reason(error)) from error


def misfit(state: dict[str, Any], why: str) -> StorageFault:
    """A checkpoint that does not fit: of another revision, or not of this configuration."""
    made = state.get("setting")
    other = other_revision(made.get("revision") if isinstance(made, dict) else None)
    if other:
        return StorageFault(f"checkpoint: does not fit this code, {why}: {other}")
    return StorageFault(f"checkpoint: does not fit config.yaml, {why}; restore it from a backup")


def reason(error: BaseException) -> str:
    """One line of an exception that tells what does not fit."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Error(s) in loading"):  # torch's, of a module
        return lines[1].rstrip(".")
    return lines[0] if lines else type(error).__name__
