"""Every family equals transformers: hidden states, pooled output, logits, loss, gradients.

The fixtures were computed by reference.py in the oracle's environment; their versions are in them.
They are read as a user's folder would be. `make oracle` does the same live, and the other way.
"""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from bert_jax.interop.folder import read_folder, write_folder
from tests.oracle import cases

pytestmark = pytest.mark.tree_mode


@pytest.mark.parametrize("name", cases.NAMES)
def test_equal_to_transformers(name, tmp_path):
    given = cases.load(cases.FIXTURES / f"{name}.npz")
    found = cases.read_case(given, tmp_path / name)
    assert not found.notes
    cases.compare(given, found)


@pytest.mark.parametrize("name", ["bert", "albert", "electra"])
def test_unrolled_too(name, tmp_path):
    given = cases.load(cases.FIXTURES / f"{name}.npz")
    cases.compare(given, cases.read_case(given, tmp_path / name), scan_layers=False)


@pytest.mark.parametrize("name", cases.NAMES + cases.FINETUNED)
def test_out_and_in_again_is_the_identity(name, tmp_path):
    given = cases.load(cases.FIXTURES / f"{name}.npz")
    found = cases.read_case(given, tmp_path / "theirs")
    special = {"pad": json.loads(str(given["config"]))["pad_token_id"], "cls": 2, "sep": 3}
    notes = write_folder(
        tmp_path / "ours", found.config, found.parameters, found.heads, special,
        {"note.txt": "x"}, found.labels,
    )  # fmt: skip
    assert not notes and (tmp_path / "ours" / "note.txt").read_text() == "x"
    theirs, ours = part_of(given), load_file(tmp_path / "ours" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for tensor, value in theirs.items():
        np.testing.assert_array_equal(ours[tensor], value, strict=True)
    again = read_folder(tmp_path / "ours")
    assert (again.config, again.heads, again.labels) == (found.config, found.heads, found.labels)
    for path, value in found.parameters.items():
        np.testing.assert_array_equal(again.parameters[path], value, strict=True)


def part_of(given):
    """Weights by the names of a model with heads: a bare encoder is saved without its own."""
    weights = cases.part(given, "weight")
    kind = json.loads(str(given["config"]))["architectures"][0]
    if kind in ("RobertaModel", "XLMRobertaModel"):
        return {f"roberta.{name}": value for name, value in weights.items()}
    return weights
