"""Hugging Face folders as they are found: old names, parts missing or too many, and damage."""

import json
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bert_jax.errors import UserError
from bert_jax.interop.folder import is_folder, read_folder, write_folder
from tests.oracle import cases

SPECIAL = {"pad": 0, "cls": 2, "sep": 3}


@pytest.fixture
def given():
    return cases.load(cases.FIXTURES / "bert.npz")


@pytest.fixture
def folder(given, tmp_path):
    return cases.folder_of(given, tmp_path / "model")


def change(folder, of_tensors=None, **of_config):
    """Rewrite the folder with its tensors mapped and fields of config.json set."""
    tensors = load_file(folder / "model.safetensors")
    if of_tensors:
        save_file(of_tensors(tensors), folder / "model.safetensors")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | of_config))


def assert_same(found, expected):
    assert found.config == expected.config and found.heads == expected.heads
    assert found.parameters.keys() == expected.parameters.keys()
    for name, value in expected.parameters.items():
        np.testing.assert_array_equal(found.parameters[name], value, err_msg=name)


def renamed(old, new):
    return lambda tensors: {name.replace(old, new): value for name, value in tensors.items()}


def test_old_names_of_norms(folder):
    expected = read_folder(folder)
    change(folder, renamed("LayerNorm.weight", "LayerNorm.gamma"))
    change(folder, renamed("LayerNorm.bias", "LayerNorm.beta"))
    assert_same(read_folder(folder), expected)


def test_tied_tensors_may_be_stored_again(folder):
    expected = read_folder(folder)
    tied = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    change(folder, lambda t: t | {alias: t[name].copy() for alias, name in tied.items()})
    found = read_folder(folder)
    assert_same(found, expected)
    assert not found.notes
    # The bias under its second name alone.
    change(folder, lambda t: {n: v for n, v in t.items() if n != "cls.predictions.bias"})
    assert_same(read_folder(folder), expected)


def test_an_untied_output_matrix_is_named(folder):
    change(
        folder,
        lambda t: t | {
            "cls.predictions.decoder.weight": t["bert.embeddings.word_embeddings.weight"] + 1
        },
    )  # fmt: skip
    with pytest.raises(UserError, match="the model is untied"):
        read_folder(folder)


def test_a_missing_pooler_is_a_model_without_one(folder):
    def without(tensors):
        return {n: v for n, v in tensors.items() if "pooler" not in n and "seq_rel" not in n}

    change(folder, without)
    found = read_folder(folder)
    assert not found.config.pooler and found.heads == ("mlm",)
    assert not any("pooler" in name for name in found.parameters)


def test_a_pair_head_without_a_pooler_is_left_out_and_named(folder):
    change(folder, lambda tensors: {n: v for n, v in tensors.items() if "pooler" not in n})
    found = read_folder(folder)
    assert found.heads == ("mlm",) and "the nsp head" in found.notes[0]


@pytest.mark.parametrize("name", ["roberta", "generator"])
def test_a_head_with_another_activation_than_theirs_is_refused(name, tmp_path):
    folder = cases.folder_of(cases.load(cases.FIXTURES / f"{name}.npz"), tmp_path / name)
    change(folder, hidden_act="gelu_new")
    with pytest.raises(UserError, match="head has the erf GELU"):
        read_folder(folder)


def test_defaults_are_the_familys(tmp_path):
    folder = cases.folder_of(cases.load(cases.FIXTURES / "albert.npz"), tmp_path / "albert")
    path = folder / "config.json"
    values = json.loads(path.read_text())
    for name in ("hidden_act", "hidden_dropout_prob", "num_hidden_groups"):
        del values[name]
    path.write_text(json.dumps(values))
    found = read_folder(folder).config
    assert (found.activation, found.hidden_dropout, found.share) == ("gelu_tanh", 0.0, "all")


def test_extra_heads_and_buffers_are_named(folder):
    expected = read_folder(folder)
    extra = {"classifier.weight": np.ones((2, 24), np.float32)}
    buffers = {"bert.embeddings.position_ids": np.arange(37)[None]}
    change(folder, lambda tensors: tensors | extra | buffers)
    found = read_folder(folder)
    assert_same(found, expected)
    assert found.notes == [f"{folder}: not used: 1 tensor(s): classifier.weight"]


def test_a_vocabulary_rounded_up_is_cut(folder):
    expected = read_folder(folder)
    word, bias = "bert.embeddings.word_embeddings.weight", "cls.predictions.bias"
    change(
        folder,
        lambda t: t | {word: np.pad(t[word], [(0, 7), (0, 0)]), bias: np.pad(t[bias], (0, 7))},
    )
    found = read_folder(folder)
    assert_same(found, expected)
    assert any("104 rows cut to vocab_size=97" in note for note in found.notes)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_become_float32(folder, dtype):
    expected = read_folder(folder)
    change(folder, lambda tensors: {n: v.astype(dtype) for n, v in tensors.items()})
    for name, value in read_folder(folder).parameters.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, expected.parameters[name].astype(dtype), name)


def test_shards(folder):
    expected = read_folder(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-1-of-2.safetensors": names[:9], "model-2-of-2.safetensors": names[9:]}
    for file, some in parts.items():
        save_file({name: tensors[name] for name in some}, folder / file)
    index = {"weight_map": {name: file for file, some in parts.items() for name in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same(read_folder(folder), expected)
    index["weight_map"][names[0]] = "../other.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="no name of a file here"):
        read_folder(folder)


def test_a_pickle_is_never_loaded(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pickle.*never loaded.*save_pretrained"):
        read_folder(folder)


@pytest.mark.parametrize(
    ("of_config", "said"),
    [
        ({"model_type": "gpt2"}, "model_type='gpt2' is not one of bert, roberta"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"is_decoder": True}, "is_decoder=True"),
        ({"hidden_act": "swish"}, "hidden_act='swish'"),
        ({"hidden_size": "24"}, "hidden_size='24' is not of type int"),
        ({"num_attention_heads": 5}, "hidden_size=24 is not divisible"),
        ({"num_hidden_layers": 4}, "has no tensor bert.encoder.layer.3"),
        ({"intermediate_size": 41}, "intermediate.dense.weight has shape"),
        ({"hidden_size": 27}, "word_embeddings.weight has shape"),
    ],
)
def test_what_cannot_be_read_is_named(folder, of_config, said):
    change(folder, **of_config)
    with pytest.raises(UserError, match=said):
        read_folder(folder)


def test_damage_is_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read"):
        read_folder(folder)
    path.unlink()
    with pytest.raises(UserError, match="has no model.safetensors"):
        read_folder(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json: is not JSON"):
        is_folder(folder)
    (folder / "config.json").write_text("[1]")
    assert not is_folder(folder)


def test_groups_of_layers_are_refused(tmp_path):
    folder = cases.folder_of(cases.load(cases.FIXTURES / "albert.npz"), tmp_path / "albert")
    change(folder, num_hidden_groups=2)
    with pytest.raises(UserError, match="num_hidden_groups=2"):
        read_folder(folder)


def test_only_new_folders_are_written(folder, tmp_path):
    found = read_folder(folder)
    with pytest.raises(UserError, match="exists already"):
        write_folder(folder, found.config, found.parameters, found.heads, SPECIAL, {})


@pytest.mark.parametrize(
    ("changes", "special", "said"),
    [
        ({"share": "all"}, SPECIAL, "not bert: its layers share nothing.*not albert: it always"),
        ({"position_offset": 2}, SPECIAL, "begin at the padding's id . 1 = 1, these at 2"),
        ({"activation": "relu", "position_offset": 1}, SPECIAL, "its head has the erf GELU"),
    ],
)
def test_an_encoder_of_no_family_is_refused(folder, tmp_path, changes, special, said):
    found = read_folder(folder)
    with pytest.raises(UserError, match=said):
        write_folder(
            tmp_path / "out", replace(found.config, **changes), found.parameters, found.heads,
            special, {},
        )  # fmt: skip
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_a_head_that_the_family_has_not_is_left_out_and_named(folder, tmp_path):
    found = read_folder(folder)
    parameters = found.parameters | {"heads.sop.kernel": np.ones((24, 2), np.float32)}
    notes = write_folder(
        tmp_path / "out", found.config, parameters, (*found.heads, "sop"), SPECIAL, {}
    )
    assert notes == ["left out: the sop head, which BertForPreTraining has not"]
