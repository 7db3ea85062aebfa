"""Parameters of every preset, to the unit: the figures of the papers' own code.

Padding of the vocabulary is ours and is left out. `make oracle` counts them in transformers too.
"""

from dataclasses import replace

import jax
import pytest
from flax import nnx

from bert_jax import config as configs
from bert_jax.objectives import build_objective, build_pretrained
from configs import albert, bert, electra, roberta, xlmr


def model_of(module, preset, **changes):
    config = configs.from_mapping(module.get_config(preset).to_dict())
    return config, replace(config.model, vocab_multiple=1, **changes)


def count(module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def counted(model, heads=()) -> int:
    return count(nnx.eval_shape(lambda: build_pretrained(model, heads, nnx.Rngs(0))))


@pytest.mark.parametrize(
    ("module", "preset", "expected"),
    [
        (bert, "tiny", 4_385_920),
        (bert, "mini", 11_170_560),
        (bert, "small", 28_763_648),
        (bert, "medium", 41_373_184),
        (bert, "base", 109_482_240),
        (bert, "base-cased", 108_310_272),
        (bert, "large", 335_141_888),
        (bert, "large-cased", 333_579_264),
        (bert, "multilingual", 177_853_440),
        (roberta, "base", 124_645_632),
        (roberta, "large", 355_359_744),
        (xlmr, "base", 278_043_648),
        (xlmr, "large", 559_890_432),
        (albert, "base", 11_683_584),
        (albert, "large", 17_683_968),
        (albert, "xlarge", 58_724_864),
        (albert, "xxlarge", 222_595_584),
        (albert, "base-v2", 11_683_584),
    ],
)
def test_encoder_with_pooler(module, preset, expected):
    _, model = model_of(module, preset, pooler=True)
    assert counted(model) == expected


@pytest.mark.parametrize(
    ("module", "preset", "heads", "expected"),
    [
        (bert, "base", ("mlm", "nsp"), 110_106_428),
        (bert, "large", ("mlm", "nsp"), 336_226_108),
        (bert, "tiny", ("mlm", "nsp"), 4_433_468),
        (bert, "mini", ("mlm", "nsp"), 11_267_900),
        (bert, "small", ("mlm", "nsp"), 29_058_876),
        (bert, "medium", ("mlm", "nsp"), 41_668_412),
        (roberta, "base", ("mlm",), 124_697_433),
        (roberta, "large", ("mlm",), 355_412_057),
        (electra, "small", ("rtd",), 13_549_057),
        (electra, "base", ("rtd",), 109_483_009),
        (electra, "large", ("rtd",), 335_142_913),
    ],
)
def test_encoder_with_heads(module, preset, heads, expected):
    _, model = model_of(module, preset)
    assert counted(model, heads) == expected


def test_bert_without_pooler():
    _, model = model_of(bert, "base", pooler=False)
    assert counted(model, ("mlm",)) == 109_514_298


@pytest.mark.parametrize(
    ("preset", "generator"), [("small", 647_162), ("base", 9_903_418), ("large", 19_512_378)]
)
def test_what_a_generator_adds(preset, generator):
    config, model = model_of(electra, preset)
    objective = build_objective(config.objective, model, config.generator)
    module = nnx.eval_shape(lambda: objective.build(model, nnx.Rngs(0)))
    assert count(module) - counted(model, ("rtd",)) == generator


@pytest.mark.parametrize(
    ("share", "embedding_size", "expected"),
    [
        ("none", 64, 87_648_000),
        ("none", 128, 89_650_176),
        ("none", 256, 93_654_528),
        ("none", 0, 109_081_344),
        ("all", 64, 9_681_408),
        ("all", 128, 11_683_584),
        ("all", 256, 15_687_936),
        ("all", 0, 31_114_752),
        ("attention", 0, 83_078_400),
        ("attention", 128, 63_647_232),
        ("feedforward", 0, 57_117_696),
        ("feedforward", 128, 37_686_528),
    ],
)
def test_sharing_and_width_of_the_tables(share, embedding_size, expected):
    """Lan et al. 2020, tables 3 and 4, with pooler; 0 is E = H."""
    _, model = model_of(albert, "base", share=share, embedding_size=embedding_size)
    assert counted(model) == expected
