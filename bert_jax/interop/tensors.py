"""The tensors of a Hugging Face folder."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from bert_jax.errors import UserError
from bert_jax.interop.family import Family
from bert_jax.interop.rows import Row

WEIGHTS, SHARDS = "model.safetensors", "model.safetensors.index.json"
# Buffers that older versions stored.
_NO_WEIGHT = ("position_ids", "token_type_ids")


class Tensors:
    """The tensors of a folder by name, old names and missing prefixes made good."""

    def __init__(self, folder: Path, family: Family):
        self._folder = folder
        self._files: dict[str, tuple[Path, str]] = {}
        for path in self._paths():
            try:
                with safe_open(path, "numpy") as file:
                    stored = list(file.keys())
            except (OSError, SafetensorError) as error:
                raise UserError(f"{path}: cannot be read ({error}); fetch it again") from error
            for name in stored:
                if name.rpartition(".")[2] not in _NO_WEIGHT:
                    self._files[_new_name(name)] = path, name
        if not any(name.startswith(family.prefix + ".") for name in self._files):
            # A bare encoder was saved without its name.
            self._files = {f"{family.prefix}.{name}": file for name, file in self._files.items()}
        for alias, name in family.aliases.items():
            if alias in self._files and name not in self._files:
                self._files[name] = self._files.pop(alias)

    @property
    def names(self) -> set[str]:
        return set(self._files)

    def all(self, row: Row, layer: int) -> tuple[list[np.ndarray], list[str]]:
        names = [name.format(layer) for name in row.theirs]
        return [self.get(name) for name in names], names

    def get(self, name: str) -> np.ndarray:
        if name not in self._files:
            raise UserError(f"{self._folder}: has no tensor {name}, which config.json leads to")
        path, stored = self._files[name]
        try:
            with safe_open(path, "numpy") as file:
                array = file.get_tensor(stored)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: {stored} cannot be read ({error})") from error
        if array.dtype.kind not in "fV":
            raise UserError(f"{path}: {stored} is of type {array.dtype}, not of floating point")
        return np.asarray(array, np.float32)

    def check_aliases(self, aliases: Mapping[str, str]) -> None:
        """A stored copy of a tied tensor must be one."""
        for alias, name in aliases.items():
            if alias in self._files and not np.array_equal(self.get(alias), self.get(name)):
                raise UserError(
                    f"{self._folder}: {alias} is not {name}: the model is untied, and here the "
                    f"output matrix is the word embedding"
                )

    def _paths(self) -> list[Path]:
        if (self._folder / WEIGHTS).exists():
            return [self._folder / WEIGHTS]
        if (self._folder / SHARDS).exists():
            try:
                found = json.loads((self._folder / SHARDS).read_text())["weight_map"].values()
                names = sorted({str(name) for name in found})
            except (OSError, ValueError, KeyError, AttributeError) as error:
                raise UserError(f"{self._folder / SHARDS}: cannot be read ({error})") from error
            for name in names:
                if Path(name).name != name:
                    raise UserError(f"{self._folder / SHARDS}: {name!r} is no name of a file here")
            return [self._folder / name for name in names]
        if any(self._folder.glob("*.bin")):
            raise UserError(
                f"{self._folder}: its weights are a pickle (.bin), which can run any code and is "
                f'never loaded; where you trust it, convert it once: python -c "from transformers '
                f"import AutoModelForPreTraining as A; A.from_pretrained('{self._folder}')"
                f".save_pretrained('{self._folder}-safe')\""
            )
        raise UserError(f"{self._folder}: has no {WEIGHTS} and no {SHARDS}")


def _new_name(name: str) -> str:
    """The first released checkpoints call the parts of a norm gamma and beta."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
