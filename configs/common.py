"""What every run has beside its paper's numbers, and how presets are made."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def common() -> ConfigDict:
    return ConfigDict(
        dict(
            seed=0,
            corpus=dict(
                source="installed-docs",  # or the path of a text file
                prepared="",  # or a folder that bert_jax.prepare wrote
                held_out=0.1,
                lowercase=True,
            ),
            mesh=dict(data=-1, fsdp=1, tensor=1),
        )
    )


def differing(config: ConfigDict, differences: Mapping[str, Any]) -> ConfigDict:
    """The config with the fields named `part.field` changed; a field must be there before."""
    with config.unlocked():
        for name, value in differences.items():
            *path, last = name.split(".")
            part = config
            for step in path:
                part = part[step]
            if last not in part:
                raise KeyError(f"{name}: no such field")
            part[last] = value
    return config


def preset(presets: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    if name not in presets:
        raise ValueError(f"no preset {name!r}; there are {', '.join(presets)}")
    return presets[name]
