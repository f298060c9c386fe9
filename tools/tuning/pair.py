"""What a search found, as a file of `configs/tuned/`."""

import dataclasses
import json

from configs.compose import quoted, train_config


def changed(command: list[str]) -> list[str]:
    """YAML of what a command line sets of agent and environment, by itself or by a tuned pair."""
    tuned = train_config(command)
    plain = train_config([f"agent={tuned.agent.name}", f"env.id={quoted(tuned.env.id)}"])
    lines = []
    for group in ("env", "agent"):
        was, now = (dataclasses.asdict(getattr(config, group)) for config in (plain, tuned))
        lines += [f"{group}:"]
        lines += [f"  {key}: {json.dumps(now[key])}" for key in now if now[key] != was[key]]
        if lines[-1] == f"{group}:":
            lines.pop()
    return lines
