"""Phases: a run whose length, batch and K change on the way, at any step in closed form."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from bert_jax import config as configs
from bert_jax.data.draws import Purpose, key, permute
from bert_jax.data.examples import build_examples
from bert_jax.data.loader import PhasedBatches, TrainingBatches, read
from bert_jax.data.phases import phases
from bert_jax.data.records import Rows
from bert_jax.data.share import Share
from bert_jax.errors import UserError
from configs import albert, bert, electra, roberta, xlmr
from tests import tiny
from tests.data.test_loader import assert_equal

STEPS = 40
# Batch warm-up, then longer rows, then shorter ones again.
THREE = replace(tiny.DATA, phases="10:16:4:3 10:16:8:3 12:64:4 8")


def sizes(config, steps):
    return [
        (p.begin, p.steps, p.data.sequence_length, p.data.batch_size, p.data.max_predictions)
        for p in phases(config, steps)
    ]


@pytest.mark.parametrize(
    ("text", "steps", "expected"),
    [
        ("", 7, [(0, 7, 32, 8, 6)]),
        ("4:16:4:3 6", 10, [(0, 4, 16, 4, 3), (4, 6, 32, 8, 6)]),
        ("90% 10%:64::9", 1000, [(0, 900, 32, 8, 6), (900, 100, 64, 8, 9)]),
        ("12.5%::4 87.5%", 17, [(0, 2, 32, 4, 6), (2, 15, 32, 8, 6)]),
        ("90% 10%:64", 1, [(0, 1, 64, 8, 6)]),  # the first is left without a step
    ],
)
def test_as_written(text, steps, expected):
    assert sizes(replace(tiny.DATA, phases=text), steps) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("9:32 1:64", "its steps add up to 10, and train.steps=12"),
        ("90% 20%", "add up to 110%"),
        ("90% 2", "all steps are numbers, or all are shares"),
        ("12:long", "'12:long' is not STEPS:LENGTH:BATCH:K"),
        ("12:32:8:6:1", "is not STEPS:LENGTH:BATCH:K"),
        ("-1:32 13:64", "'-1:32' is not"),
        ("12:4", "data.sequence_length=4"),
        ("12:32:0", "data.batch_size=0"),
        ("12:128", "data.phases: a length=128 is longer than the model.max_positions=64"),
    ],
)
def test_what_cannot_be_is_named(text, said):
    train = configs.TrainConfig(steps=12)
    with pytest.raises(UserError, match=said) as error:
        configs.RunConfig(model=tiny.MODEL, data=replace(tiny.DATA, phases=text), train=train)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("module", "preset"), [(bert, "base"), (bert, "large-cased")])
def test_the_papers_two_phases(module, preset):
    config = configs.from_mapping(module.get_config(preset).to_dict())
    assert sizes(config.data, config.train.steps) == [
        (0, 900_000, 128, 256, 20), (900_000, 100_000, 512, 256, 77),
    ]  # fmt: skip


@pytest.mark.parametrize("module", [roberta, xlmr, albert, electra])
def test_other_families_have_one(module):
    for preset in module.PRESETS:
        config = configs.from_mapping(module.get_config(preset).to_dict())
        assert len(config.phases) == 1


@pytest.fixture(scope="module")
def three(corpus):
    return phased(corpus)


def phased(corpus, config=THREE, **share):
    run = phases(config, STEPS)
    rows, words = Rows(corpus.folder, "train"), tiny.vocabulary()
    examples = {
        p.data.sequence_length: build_examples(rows, words, p.data) for p in run
    }  # fmt: skip
    return PhasedBatches(run, examples, words, 0, **share)


def test_one_phase_is_what_no_phases_are(corpus):
    plain = tiny.batches(corpus)
    single = phased(corpus, tiny.DATA)
    for step in (0, 5, 39):
        assert_equal(single[step], plain[step])


def test_shapes_change_at_the_borders(three):
    assert len(three) == STEPS
    shapes = [three[step]["mlm_positions"].shape for step in (0, 9, 10, 19, 20, 31, 32, 39)]
    assert shapes == [(4, 3)] * 2 + [(8, 3)] * 2 + [(4, 6)] * 2 + [(8, 6)] * 2
    lengths = [three[step]["input_ids"].shape[1] for step in (9, 10, 19, 20, 31, 32)]
    assert lengths == [16, 16, 16, 64, 64, 32]


def test_a_larger_batch_goes_on_at_the_next_example(three):
    """Examples of both batch sizes in the order of one permutation, none left out."""
    examples = three._parts[0]._examples
    numbers = np.arange(40 + 80)
    epochs, places = np.divmod(numbers, len(examples))
    expected = permute(places, len(examples), key(0, Purpose.ORDER, epochs))
    drawn = examples.batch(expected, key(0, epochs, expected))
    found = [three[step]["nsp_labels"] for step in range(20)]
    np.testing.assert_array_equal(np.concatenate(found), drawn["nsp_labels"])
    found = [three[step]["segment_ids"] for step in range(20)]
    np.testing.assert_array_equal(np.concatenate(found), drawn["segment_ids"])


def test_another_length_begins_the_next_epoch(three):
    epochs = three.epochs
    assert epochs[0][0] == 0 and epochs[0][1] == epochs[1][0]
    for before, after in itertools.pairwise(epochs[1:]):
        assert after[0] == np.ceil(before[1])
    mine = three._parts[2]
    fresh = TrainingBatches(mine._examples, mine._config, tiny.vocabulary(), 0, 12)
    assert not np.array_equal(fresh[0]["input_ids"], three[20]["input_ids"])
    first = permute(np.arange(4), len(mine._examples), key(0, Purpose.ORDER, int(epochs[2][0])))
    drawn = mine._examples.batch(first, key(0, int(epochs[2][0]), first))
    np.testing.assert_array_equal(three[20]["segment_ids"], drawn["segment_ids"])


@pytest.mark.parametrize(("start", "workers"), [(0, 0), (8, 0), (19, 0), (33, 0), (17, 2)])
def test_a_start_anywhere_gives_the_same(three, start, workers):
    for step, batch in enumerate(itertools.islice(read(three, start, workers), 5), start):
        assert_equal(batch, three[step])


def test_hosts_share_every_phase(corpus, three):
    parts = [phased(corpus, share=Share((host,), 4)) for host in range(4)]
    for step in (3, 12, 25, 35):
        found = [part[step] for part in parts]
        together = {name: np.concatenate([f[name] for f in found]) for name in found[0]}
        assert_equal(together, three[step])
