"""Fine-tuning equals transformers': from one checkpoint, over the same batches in the same order,
our train step has the losses that torch's AdamW has as transformers' Trainer sets it up.

The fixtures were computed by reference.py; `make oracle` does the same live.
"""

import pytest

from tests.oracle import cases

pytestmark = pytest.mark.tree_mode


@pytest.mark.parametrize("name", cases.TRAINED)
def test_losses_are_theirs(name, tmp_path, mesh):
    given = cases.load(cases.TRAINING / f"{name}.npz")
    cases.compare_training(given, cases.read_case(given, tmp_path / name))
