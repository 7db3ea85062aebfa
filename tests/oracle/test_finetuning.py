"""Fine-tuned models equal transformers', and so does fine-tuning: from one checkpoint, over the
same batches in the same order, our train step has the losses that torch's AdamW has as
transformers' Trainer sets it up.

The fixtures were computed by reference.py; `make oracle` does the same live.
"""

import pytest

from tests.oracle import cases


@pytest.mark.parametrize("name", cases.FINETUNED)
def test_equal_to_transformers(name, tmp_path):
    given = cases.load(cases.FIXTURES / f"{name}.npz")
    found = cases.read_case(given, tmp_path / name)
    assert not found.notes
    cases.compare(given, found)


@pytest.mark.parametrize("name", cases.TRAINED)
def test_losses_are_theirs(name, tmp_path):
    given = cases.load(cases.TRAINING / f"{name}.npz")
    cases.compare_training(given, cases.read_case(given, tmp_path / name))
