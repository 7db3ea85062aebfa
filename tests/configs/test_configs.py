"""Presets are whole, and a config survives being written down."""

import json
from dataclasses import replace

import pytest

from bert_jax import config as configs
from bert_jax.errors import UserError
from bert_jax.objectives import build_objective
from bert_jax.training.optim import build_optimizer
from configs import albert, bert, common, demo, electra, roberta, xlmr

FAMILIES = (albert, bert, electra, roberta, xlmr)
PRESETS = [(module, name) for module in FAMILIES for name in module.PRESETS] + [(demo, None)]


def config_of(module, preset):
    values = module.get_config(preset) if preset else module.get_config()
    return configs.from_mapping(values.to_dict())


@pytest.mark.parametrize(("module", "preset"), PRESETS)
def test_presets_set_every_field(module, preset):
    """A field that a preset does not have could not be set on the command line."""
    values = module.get_config(preset) if preset else module.get_config()
    config = config_of(module, preset)
    assert configs.flat(configs.to_mapping(config)) == configs.flat(values.to_dict())
    assert {item for item in configs.flat(values.to_dict()) if "objective" not in item} == {
        item for item in configs.flat(configs.to_mapping(configs.RunConfig()))
    }


@pytest.mark.parametrize(("module", "preset"), PRESETS)
def test_to_json_and_back(module, preset, tmp_path):
    config = config_of(module, preset)
    build_objective(config.objective, config.model, config.generator)
    build_optimizer(config.optimizer, config.train.steps)
    configs.save(config, tmp_path)
    assert configs.load(tmp_path) == config
    assert json.loads((tmp_path / "config.json").read_text())["model"]["vocab_size"]


def test_bert_is_devlins():
    config = config_of(bert, "base")
    assert (config.model.num_layers, config.model.hidden_size, config.model.num_heads) == (
        12, 768, 12,
    )  # fmt: skip
    assert config.data.mask_rate == 0.15 and config.data.batch_size == 256
    assert not config.optimizer.bias_correction and config.optimizer.epsilon == 1e-6
    assert {n: c for n, c in config.objective.items() if c} == {"mlm": 1.0, "nsp": 1.0}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": {"num_layer": 3}}, "model.num_layer: there is no such field; did you mean"),
        ({"modle": {}}, "did you mean model"),
        ({"data": {"bogus": 1}}, "no such field; there are sequence_length, batch_size, format"),
        ({"model": {"num_layers": "3"}}, "must be of type int"),
        ({"seed": True}, "must be of type int"),
        ({"data": {"mask_rate": "x"}}, "must be of type float"),
        ({"objective": {"mlm": "x"}}, "objective.mlm"),
        ({"model": {"vocab_size": 99_999_999_999}}, "model.vocab_size=99999999999: must be"),
        ({"data": {"batch_size": 1_000_000_000_000}}, "data.batch_size=1000000000000: must be"),
        ({"objective": {"mlm": 1}, "data": {"mask_rate": 0}}, "objective.mlm learns from masked"),
        ({"objective": {"rtd": 50}, "data": {"mask_rate": 0}}, "objective.rtd learns from masked"),
        ({"data": {"static_copies": 10**22}}, "data.static_copies=1"),
    ],
)
def test_wrong_fields_are_named(values, said):
    with pytest.raises(UserError, match=said):
        configs.from_mapping(values)


def test_whole_numbers_do_for_rates():
    assert configs.from_mapping({"data": {"mask_rate": 0}}).data.mask_rate == 0.0


def test_what_decides_nothing_may_differ(tmp_path):
    config = config_of(demo, None)
    configs.save(config, tmp_path)
    configs.check_goes_on(replace(config, mesh=replace(config.mesh, fsdp=2)), tmp_path, 0)
    with pytest.raises(UserError, match="train.steps"):
        configs.check_goes_on(replace(config, train=replace(config.train, steps=7)), tmp_path, 0)


def test_a_difference_must_name_a_field():
    with pytest.raises(KeyError):
        common.differing(bert.get_config("tiny"), {"model.layers": 3})
