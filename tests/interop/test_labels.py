"""Folders of fine-tuned models: which head, how many labels, and what they are called."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bert_jax.errors import UserError
from bert_jax.interop.folder import read_folder, write_folder
from tests.oracle import cases

SPECIAL = {"pad": 0, "cls": 2, "sep": 3}
NAMES = ("low", "middle", "high")


def folder_of(name, tmp_path, **of_config):
    """The fixture as a folder, fields of config.json set; None leaves one out."""
    folder = cases.folder_of(cases.load(cases.FIXTURES / f"{name}.npz"), tmp_path / name)
    path = folder / "config.json"
    values = json.loads(path.read_text()) | of_config
    path.write_text(json.dumps({n: v for n, v in values.items() if v is not None}))
    return folder


def without(folder, *parts):
    path = folder / "model.safetensors"
    kept = {n: v for n, v in load_file(path).items() if not any(part in n for part in parts)}
    save_file(kept, path)


@pytest.mark.parametrize(
    ("name", "head", "num_labels", "labels", "pooler"),
    [
        ("bert_classify", "classify", 3, NAMES, ("tanh", True)),
        ("bert_regress", "classify", 1, (), ("tanh", True)),
        ("roberta_tag", "tag", 3, NAMES, ("tanh", False)),
        ("xlmr_classify", "classify", 3, NAMES, ("tanh", True)),
        ("albert_choose", "choose", 1, (), ("tanh", True)),
        ("electra_classify", "classify", 3, NAMES, ("gelu", True)),
        ("electra_choose", "choose", 1, (), ("gelu", True)),
        ("electra_answer", "answer", 2, (), ("gelu", False)),
    ],
)
def test_what_a_folder_tells(name, head, num_labels, labels, pooler, tmp_path):
    found = read_folder(folder_of(name, tmp_path))
    assert (found.heads, found.labels, found.notes) == ((head,), labels, [])
    assert found.config.num_labels == num_labels
    assert (found.config.pooler_activation, found.config.pooler) == pooler


def test_names_that_transformers_leaves_out(tmp_path):
    """It writes none where there are two labels, and once wrote their number alone."""
    usual = ("LABEL_0", "LABEL_1", "LABEL_2")
    fields = {"id2label": None, "label2id": None}
    folder = folder_of("bert_tag", tmp_path / "number", **fields, num_labels=3)
    assert read_folder(folder).labels == usual
    folder = folder_of("bert_tag", tmp_path / "two", **fields)
    weights = load_file(folder / "model.safetensors")
    two = {n: v[:2] if n.startswith("classifier") else v for n, v in weights.items()}
    save_file(two, folder / "model.safetensors")
    assert read_folder(folder).labels == usual[:2]


def test_tensors_tell_the_head_where_no_class_is_named(tmp_path):
    found = read_folder(folder_of("roberta_classify", tmp_path, architectures=None))
    assert (found.heads, found.labels) == (("classify",), NAMES)
    found = read_folder(folder_of("bert_answer", tmp_path, architectures=None))
    assert found.heads == ("answer",)
    # classifier.weight may be of a text, of tokens or of choices.
    found = read_folder(folder_of("bert_classify", tmp_path, architectures=None))
    assert found.heads == () and found.config.num_labels == 0
    (note,) = found.notes
    assert note.endswith("not used: 2 tensor(s): classifier.bias, classifier.weight")


def test_a_pooler_that_feeds_no_head_is_named(tmp_path):
    """Older RobertaForSequenceClassification were saved with the encoder's own pooler as well."""
    folder = folder_of("roberta_classify", tmp_path)
    expected, path = read_folder(folder), folder / "model.safetensors"
    extra = {"roberta.pooler.dense.weight": np.ones((12, 12), np.float32)}
    save_file(load_file(path) | extra, path)
    found = read_folder(folder)
    (note,) = found.notes
    assert note.endswith("not used: 1 tensor(s): roberta.pooler.dense.weight")
    kernel = "encoder.pooler.kernel"
    np.testing.assert_array_equal(found.parameters[kernel], expected.parameters[kernel])


def test_a_head_of_texts_without_its_pooler_is_left_out_and_named(tmp_path):
    folder = folder_of("bert_classify", tmp_path)
    without(folder, "pooler")
    found = read_folder(folder)
    assert (found.heads, found.labels, found.config.num_labels) == ((), (), 0)
    assert "the classify head, as there is no pooler to feed it" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "of_config", "said"),
    [
        ("bert_classify", {"problem_type": "multi_label_classification"}, "of 3 labels is not sup"),
        ("bert_classify", {"problem_type": "regression"}, "'regression' of 3 labels is not supp"),
        ("bert_classify", {"id2label": {"0": "a", "1": "b"}}, "leads to 2 labels.*head has 3"),
        ("bert_tag", {"id2label": {"1": "a", "2": "b", "3": "c"}}, "3 labels, numbered from 0"),
        ("bert_tag", {"id2label": {"a": 0, "b": 1, "c": 2}}, "must have a name a number"),
        ("bert_tag", {"id2label": ["a", "b", "c"]}, "must have a name a number"),
        ("bert_tag", {"id2label": None, "num_labels": "3"}, "num_labels='3'"),
        ("bert_tag", {"architectures": ["BertForQuestionAnswering"]}, "has no tensor qa_outputs"),
        ("bert_classify", {"architectures": ["BertForMultipleChoice"]}, "has 3 logits, not 1"),
        ("electra_choose", {"summary_activation": "tanh"}, "summary_activation='tanh' is not sup"),
        ("electra_choose", {"summary_type": "mean"}, "summary_type='mean' is not supported"),
    ],
)
def test_what_cannot_be_read_is_named(name, of_config, said, tmp_path):
    with pytest.raises(UserError, match=said):
        read_folder(folder_of(name, tmp_path, **of_config))


def written(found, folder, heads=None, labels=(), **changes):
    """config.json of the model, and the notes."""
    notes = write_folder(
        folder, replace(found.config, **changes), found.parameters,
        found.heads if heads is None else heads, SPECIAL, {}, labels,
    )  # fmt: skip
    return json.loads((folder / "config.json").read_text()), notes


def test_what_is_written_of_labels(tmp_path):
    found = read_folder(folder_of("bert_classify", tmp_path))
    values, notes = written(found, tmp_path / "named", labels=("no", "so so", "yes"))
    assert values["architectures"] == ["BertForSequenceClassification"] and not notes
    assert values["id2label"] == {"0": "no", "1": "so so", "2": "yes"}
    assert values["label2id"] == {"no": 0, "so so": 1, "yes": 2}
    assert "problem_type" not in values
    values, _ = written(found, tmp_path / "nameless")
    assert values["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    number = read_folder(folder_of("bert_regress", tmp_path))
    values, _ = written(number, tmp_path / "number")
    assert values["problem_type"] == "regression" and values["id2label"] == {"0": "LABEL_0"}
    for name in ("bert_answer", "bert_choose", "bert"):
        values, _ = written(read_folder(folder_of(name, tmp_path)), tmp_path / f"{name}-written")
        assert "id2label" not in values, name


def test_the_poolers_activation_decides_the_family(tmp_path):
    found = read_folder(folder_of("electra_wide", tmp_path))  # its tables are not projected
    assert found.config.embedding_size == 0 and found.config.pooler_activation == "gelu"
    values, notes = written(found, tmp_path / "bare", heads=())
    assert values["model_type"] == "electra"
    values, _ = written(found, tmp_path / "tanh", heads=(), pooler_activation="tanh")
    assert values["model_type"] == "bert"
    classify = read_folder(folder_of("bert_classify", tmp_path))
    values, _ = written(classify, tmp_path / "gelu", pooler_activation="gelu")
    assert values["architectures"] == ["ElectraForSequenceClassification"]
    with pytest.raises(UserError, match=r"not bert: .*activation is tanh, not gelu.*not electra"):
        written(classify, tmp_path / "none", pooler_activation="gelu", share="all")
