"""What a run takes over from a model: rows of new pieces, and the optimiser's state."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx

from bert_jax import beginning, config as configs, pretrained
from bert_jax.config import RunConfig
from bert_jax.data.extension import extend
from bert_jax.data.prepare import prepare
from bert_jax.errors import UserError
from bert_jax.objectives import build_objective
from bert_jax.training.checkpoint import Checkpoints
from bert_jax.training.optim import OptimizerConfig, build_optimizer, is_moments
from bert_jax.training.step import init_parameters, init_state
from tests import tiny
from tests.data.test_extension import corpus_config, domain
from tests.test_programs import refused, start

NEW = 20
MLM = {"mlm": 1.0}


@pytest.fixture(scope="module")
def source(encoder):
    return pretrained.load(encoder)


@pytest.fixture(scope="module")
def longer(source):
    return extend(source.tokenizer, domain(), NEW)


def rows(state):
    """Of the words and the output bias."""
    return [
        np.asarray(state["encoder"]["embeddings"]["word"].get_value()),
        np.asarray(state["heads"]["mlm"]["vocab_bias"].get_value()),
    ]


@pytest.mark.parametrize(
    ("devices", "multiple"), [((1, 1, 1), 128), ((1, 1, 1), 100), ((2, 2, 2), 100)]
)
def test_new_rows_are_means_of_old_ones(encoder, source, longer, devices, multiple):
    objective = build_objective(MLM, tiny.MODEL)
    model = replace(source.config, vocab_size=longer.vocab_size, vocab_multiple=multiple)
    names = ("data", "fsdp", "tensor")
    mesh = jax.make_mesh(devices, names, devices=jax.devices()[: np.prod(devices)])
    with jax.set_mesh(mesh):
        fresh = init_parameters(objective, model, 1)
        before = rows(fresh)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, fresh)
        notes = beginning.begin(encoder, objective, model, fresh, longer)
        assert jax.tree.map(lambda leaf: leaf.sharding, fresh) == shardings
    assert len(notes) == 2 and notes[1].startswith(f"{NEW} pieces are new: the row of each begins")
    old = source.tokenizer.vocab_size
    for was, now, theirs in zip(before, rows(fresh), rows(source.parameters), strict=True):
        np.testing.assert_array_equal(now[:old], theirs[:old])
        np.testing.assert_array_equal(now[old + NEW :], was[old + NEW :])
        for number in range(old, old + NEW):
            parts = source.tokenizer.parts_of(longer.piece(number))
            np.testing.assert_allclose(now[number], theirs[parts].mean(axis=0), atol=1e-6)
    mine, other = (dict(nnx.to_flat_state(s["encoder"])) for s in (fresh, source.parameters))
    for path in other.keys() - {("embeddings", "word")}:
        np.testing.assert_array_equal(mine[path].get_value(), other[path].get_value())


def test_other_first_ids_are_refused(encoder, source, longer):
    objective = build_objective(MLM, tiny.MODEL)
    fresh = init_parameters(objective, source.config, 1)
    fewer = replace(source, tokenizer=longer)
    with pytest.raises(UserError, match="its tokenizer gives other ids"):
        beginning._parts_of_new_pieces(fewer, source.tokenizer)
    beginning.begin(encoder, objective, source.config, fresh, source.tokenizer)
    for now, theirs in zip(rows(fresh), rows(source.parameters), strict=True):
        np.testing.assert_array_equal(now, theirs)


CONFIG = RunConfig(
    model=tiny.MODEL, objective=MLM, data=tiny.DATA, optimizer=OptimizerConfig(warmup_steps=2)
)


def state_of(config, seed):
    objective = build_objective(config.objective, config.model)
    tx = build_optimizer(config.optimizer, config.train.steps)
    return init_state(objective, config.model, tx, seed)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, mesh):
    """A run's checkpoint of step 7, every number of it another."""
    folder = tmp_path_factory.mktemp("run") / "workdir"
    rng = np.random.default_rng(0)
    state = jax.tree.map(
        lambda leaf: jax.device_put(
            (rng.random(leaf.shape) * 9 + 1).astype(leaf.dtype), leaf.sharding
        ),
        state_of(CONFIG, 0),
    )
    checkpoints = Checkpoints(folder, 1)
    checkpoints.save(7, state)
    checkpoints.close()
    configs.save(CONFIG, folder)
    return folder, state


def moments(state):
    (found,) = (
        node for node in jax.tree.leaves(state.optimizer, is_leaf=is_moments) if is_moments(node)
    )
    return found


def test_the_optimizer_is_restored(workdir):
    """Moments, their count and the parameters; not the step, and not the schedule."""
    folder, theirs = workdir
    optimizer = replace(CONFIG.optimizer, clip_norm=0.0, learning_rate=1e-3, beta2=0.98)
    config = replace(CONFIG, optimizer=optimizer)
    objective = build_objective(MLM, tiny.MODEL)
    beginning.check_optimizer(str(folder), config, objective)
    fresh = state_of(config, 1)
    mine, notes = beginning.with_optimizer(str(folder), fresh)
    assert notes == ["the optimiser's moments are those of step 7; its schedule begins"]
    assert jax.tree.structure(mine) == jax.tree.structure(fresh)
    jax.tree.map(np.testing.assert_array_equal, moments(mine), moments(theirs))
    assert moments(mine).count > 0
    jax.tree.map(np.testing.assert_array_equal, mine.parameters, theirs.parameters)
    assert mine.step == mine.skipped == 0
    counts = [leaf for leaf in jax.tree.leaves(mine.optimizer) if leaf.dtype == np.int32]
    assert sorted(map(int, counts)) == [0, int(moments(theirs).count)]


def test_what_has_no_such_state_is_refused(workdir, encoder, fine_tuned):
    folder, _ = workdir
    objective = build_objective(MLM, tiny.MODEL)

    def with_(**changes):
        return replace(CONFIG, optimizer=replace(CONFIG.optimizer, **changes))

    longer = replace(tiny.MODEL, vocab_size=tiny.VOCAB + 20)
    deeper = replace(tiny.MODEL, num_layers=3)
    for model, config, learned, said in (
        (encoder, CONFIG, objective, "has no state of an optimiser, as it is no workdir"),
        (str(fine_tuned("tag")), CONFIG, objective, "has no state of an optimiser"),
        (str(folder), with_(name="lamb"), objective, "has name=adamw and this run's lamb"),
        (str(folder), with_(bias_correction=False), objective, "optimizer.bias_correction=True"),
        (str(folder), replace(CONFIG, model=longer), objective, "has 200 pieces and this run 220"),
        (str(folder), replace(CONFIG, model=deeper), objective, "there .2, .*, here .3, "),
        (str(folder), CONFIG, tiny.bert(), "heads.nsp.*there none, here"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            beginning.check_optimizer(model, config, learned)


def test_the_program(encoder, source, tmp_path):
    """Prepare with new pieces, pretrain from the model, score a text before and after."""
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join("\n".join(domain()[n : n + 10]) for n in range(0, 150, 10)))
    size = source.tokenizer.vocab_size + NEW
    config = corpus_config(text, tokenizer=encoder, new_pieces=NEW)
    prepare(config, size, tmp_path / "prepared", lambda *_: None)
    sizes = [word for word in tiny.OVERRIDES if "vocab_size" not in word and "corpus" not in word]

    def pretrain(workdir, *words):
        return start(
            "pretrain", "--config=configs/bert.py:tiny", f"--workdir={workdir}",
            f"--config.corpus.prepared={tmp_path / 'prepared'}", "--config.model.dtype=float32",
            "--config.train.steps=4", "--config.optimizer.bias_correction=True",
            f"--config.model.vocab_size={size}", *sizes, *words,
        )  # fmt: skip

    done = pretrain(tmp_path / "more", f"--init={encoder}")
    assert done.returncode == 0, done.stderr
    assert f"{NEW} pieces are new: the row of each begins from the mean" in done.stdout
    again = pretrain(
        tmp_path / "again", f"--init={tmp_path / 'more'}", "--init_optimizer=restored",
        "--config.optimizer.learning_rate=1e-9",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "the optimiser's moments are those of step 4" in again.stdout
    said = json.loads((tmp_path / "again" / "init.json").read_text())
    assert said == {"init": str(tmp_path / "more"), "init_optimizer": "restored"}
    words = ["--config.optimizer.learning_rate=1e-9", f"--init={tmp_path / 'more'}"]
    refused(
        pretrain(tmp_path / "again", *words), "begun with --init_optimizer=restored, and now",
        "fresh",
    )  # fmt: skip
    refused(pretrain(tmp_path / "no", "--init_optimizer=restored"), "name the workdir that has it")
    refused(
        pretrain(tmp_path / "no", "--config.model.vocab_size=200"),
        f"set model.vocab_size={size}",
    )  # fmt: skip
    scored = start("evaluate", f"--model={tmp_path / 'again'}", f"--text={text}", "--limit=3")
    assert scored.returncode == 0 and "bits_by_character" in scored.stdout, scored.stderr
