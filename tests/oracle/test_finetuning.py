"""Fine-tuning equals transformers': the losses of 20 steps from one checkpoint, over the same batches
in the same order, of our train step and of torch's AdamW as transformers' Trainer sets it up.

The fixtures were computed by reference.py; `make oracle` does the same live.
"""

import pytest

from tests.oracle import cases

pytestmark = pytest.mark.tree_mode


@pytest.mark.parametrize("name", cases.TRAINED)
def test_losses_are_theirs(name, tmp_path, mesh):
    given = cases.load(cases.TRAINING / f"{name}.npz")
    cases.compare_training(given, cases.read_case(given, tmp_path / name))
