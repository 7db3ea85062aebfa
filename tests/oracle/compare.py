"""The live comparison with transformers, both ways: `make oracle`.

python -m tests.oracle.compare --oracle=.venv-oracle/bin/python
"""

import argparse
import json
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from bert_jax import pretrained
from bert_jax.convert import convert
from bert_jax.data.tokenizers import train_tokenizer
from bert_jax.interop import FAMILIES
from bert_jax.interop.folder import read_folder
from bert_jax.models.config import EncoderConfig
from bert_jax.objectives import build_objective, build_pretrained
from bert_jax.training.mesh import one_device
from configs import albert, bert, electra, roberta, xlmr
from tests import finetuning, tiny
from tests.configs.test_counts import counted, model_of
from tests.oracle import cases
from tests.oracle.inputs import labelled
from tests.test_programs import start

REFERENCE = Path(__file__).parent / "reference.py"
# Ours to theirs, at sizes that no fixture has.
MODEL = EncoderConfig(
    vocab_size=300, hidden_size=40, num_layers=3, num_heads=5, intermediate_size=72,
    max_positions=33, initializer_stddev=0.2,
)  # fmt: skip
OURS = {
    "BertForPreTraining": (MODEL, ("mlm", "nsp")),
    "BertForMaskedLM": (replace(MODEL, pooler=False), ("mlm",)),
    "BertForNextSentencePrediction": (MODEL, ("nsp",)),
    "BertModel": (MODEL, ()),
    "RobertaModel": (replace(MODEL, position_offset=2, type_vocab_size=1), ()),
    "AlbertModel": (replace(MODEL, embedding_size=18), ()),
    "AlbertForMaskedLM": (
        replace(MODEL, embedding_size=18, pooler=False, share="all"), ("mlm",),
    ),
    "ElectraModel": (replace(MODEL, pooler=False, embedding_size=18), ()),
    "RobertaForMaskedLM": (
        replace(MODEL, pooler=False, position_offset=2, type_vocab_size=1), ("mlm",),
    ),
    "AlbertForPreTraining": (replace(MODEL, embedding_size=18, share="all"), ("mlm", "sop")),
    "ElectraForPreTraining": (replace(MODEL, pooler=False, embedding_size=18), ("rtd",)),
    "ElectraForMaskedLM": (replace(MODEL, pooler=False, embedding_size=18), ("mlm",)),
}  # fmt: skip
# The same of fine-tuned ones: an encoder of each family.
FINETUNED = {
    "Bert": MODEL,
    "Roberta": replace(MODEL, position_offset=2, type_vocab_size=1),
    "Albert": replace(MODEL, embedding_size=18, share="all"),
    "Electra": replace(MODEL, embedding_size=18, pooler_activation="gelu"),
}
ENDINGS = {
    "classify": "ForSequenceClassification", "tag": "ForTokenClassification",
    "answer": "ForQuestionAnswering", "choose": "ForMultipleChoice",
}  # fmt: skip
WIDTHS = {"classify": 4, "tag": 5, "answer": 2, "choose": 1}
OURS |= {
    family + ending: (
        replace(model, num_labels=WIDTHS[head], pooler=head in ("classify", "choose")), (head,),
    )
    for family, model in FINETUNED.items()
    for head, ending in ENDINGS.items()
}  # fmt: skip
PARTLY_SHARED = {
    share: (replace(MODEL, embedding_size=18, share=share), ("mlm", "sop"))
    for share in ("attention", "feedforward", "none")
}
BRACKETS, ANGLES = "[PAD] [UNK] [CLS] [SEP] [MASK]", "<s> <pad> </s> <unk> ... <mask>"
TOKENIZERS = (
    ("wordpiece", BRACKETS, True), ("wordpiece", BRACKETS, False), ("bpe", ANGLES, False),
    ("sentencepiece", BRACKETS, True), ("sentencepiece", ANGLES, False),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--oracle", required=True, help="the Python that has torch")
    parser.add_argument("--update", action="store_true", help="write the committed fixtures anew")
    arguments = parser.parse_args()
    folder = tempfile.TemporaryDirectory()
    scratch = Path(folder.name)

    def oracle(*words: object) -> None:
        subprocess.run([arguments.oracle, REFERENCE, *map(str, words)], check=True)

    with jax.set_mesh(one_device()):
        (scratch / "live").mkdir()
        oracle("make", scratch / "live")
        for path in sorted((scratch / "live").iterdir()):
            fresh = cases.load(path)
            cases.compare(fresh, cases.read_case(fresh, scratch / path.stem))
            if arguments.update:
                (cases.FIXTURES / path.name).write_bytes(path.read_bytes())
            committed = cases.part(cases.load(cases.FIXTURES / path.name), "output")
            for name, value in cases.part(fresh, "output").items():
                np.testing.assert_allclose(committed[name], value, rtol=0, atol=1e-5)
            print(f"{path.stem}: theirs computed here equals theirs; the fixture is today's")
        finetune(scratch, oracle, arguments.update)
        from_finetuning(scratch, oracle)
        tokenizers = {
            (kind, names, lower): train_tokenizer(
                kind, iter(tiny.sentences(400)), 300, lower, names
            )
            for kind, names, lower in TOKENIZERS
        }
        count_presets(scratch, oracle)
        for name, (model, heads) in (OURS | PARTLY_SHARED).items():
            angles = model.position_offset > 0
            tokenizer = tokenizers[("bpe", ANGLES, False) if angles else TOKENIZERS[0]]
            output = scratch / f"ours-{name}"
            there_and_back(model, heads, tokenizer, output, oracle)
            kind = json.loads((output / "config.json").read_text())["architectures"][0]
            assert name in (kind, model.share)
            print(f"ours written, loaded as {kind} (share={model.share}): equal")
        for (kind, names, lower), tokenizer in tokenizers.items():
            output = scratch / f"tokenizer-{kind}-{lower}-{len(names)}"
            there_and_back(MODEL, ("mlm",), tokenizer, output, None)
            texts = [*tiny.sentences(200, seed=5), "", "  Two  spaces, Ünïcode, 東京 and 😀 "]
            (scratch / "texts.json").write_text(json.dumps(texts))
            oracle("tokenize", output, scratch / "texts.json", scratch / "ids.json")
            v = tokenizer.vocabulary
            mine = [[v.cls, *ids, v.sep] for ids in tokenizer.encode(texts)]
            assert mine == json.loads((scratch / "ids.json").read_text()), kind
            print(f"tokenizer {kind}, {names}: AutoTokenizer gives our ids")


def finetune(scratch: Path, oracle, update: bool) -> None:
    """The losses of 20 steps, from a checkpoint that transformers has just written."""
    (scratch / "training").mkdir()
    oracle("train", scratch / "training")
    for path in sorted((scratch / "training").iterdir()):
        fresh = cases.load(path)
        found = cases.read_case(fresh, scratch / f"{path.stem}-trained")
        difference = cases.compare_training(fresh, found)
        if update:
            (cases.TRAINING / path.name).write_bytes(path.read_bytes())
        committed = cases.load(cases.TRAINING / path.name)["output/loss"]
        np.testing.assert_allclose(committed, fresh["output/loss"], rtol=0, atol=1e-5)
        print(
            f"{path.stem}: {len(committed)} steps of fine-tuning, losses equal within "
            f"{difference:.1e}"
        )


def from_finetuning(scratch: Path, oracle) -> None:
    """What the programs finetune and convert leave, loaded by transformers: equal outputs."""
    (scratch / "labelled").mkdir()
    data, model = finetuning.make_data(scratch / "labelled"), scratch / "encoder"
    finetuning.make_model(model)
    for name, config in (
        ("classify", "glue.py:sst2"), ("tag", "ner.py:conll2003"), ("answer", "squad.py:v2"),
    ):  # fmt: skip
        workdir, output = scratch / f"tuned-{name}", scratch / f"tuned-{name}-hf"
        files = finetuning.TASKS[name]
        done = [
            start(
                "finetune", f"--config=configs/tasks/{config}", f"--data={data}",
                f"--init={model}", f"--workdir={workdir}", "--config.epochs=1",
                "--config.task.max_length=32", "--config.batch_size=8",
                *(f"--config.task.{field}={files[field]}" for field in files if field != "kind"),
            ),
            start("convert", f"--model={workdir}", f"--output={output}"),
        ]  # fmt: skip
        assert all(one.returncode == 0 for one in done), [one.stderr for one in done]
        ours = pretrained.load(workdir)
        written_equals_theirs(ours.config, name, ours.tokenizer, output, oracle, ours.labels)
        print(f"{name}: fine-tuned and converted by the programs, loaded by transformers: equal")


def count_presets(scratch: Path, oracle) -> None:
    """Every preset has as many parameters, with the heads of its objective, as in transformers."""
    mine, theirs = [], []
    for number, module in enumerate((bert, roberta, electra, albert, xlmr)):
        family = FAMILIES[1 if module is xlmr else number]
        for preset in module.PRESETS:
            config, model = model_of(module, preset)
            objective = build_objective(config.objective, model, config.generator)
            for part in objective.parts:
                whole = nnx.eval_shape(lambda o=objective, m=model: o.build(m, nnx.Rngs(0)))
                size, state = objective.part(part, model, nnx.state(whole, nnx.Param))
                heads = tuple(head for head in family.heads if head in state["heads"])
                mine.append((module.__name__, preset, part, counted(size, heads)))
                theirs.append(family.to_theirs(size, heads))
    (scratch / "configs.json").write_text(json.dumps(theirs))
    oracle("count", scratch / "configs.json", scratch / "counts.json")
    counts = json.loads((scratch / "counts.json").read_text())
    for (*names, found), expected in zip(mine, counts, strict=True):
        assert found == expected, (names, found, expected)
    print(f"{len(mine)} models of all presets: as many parameters as theirs")


def there_and_back(model, heads, tokenizer, output, oracle) -> None:
    """Random parameters written by convert; where there is an oracle, its numbers beside ours."""
    module = build_pretrained(model, heads, nnx.Rngs(1))
    state = nnx.state(module, nnx.Param)
    (head,) = heads if set(heads) & set(ENDINGS) else ("",)
    named = model.num_labels if head in ("classify", "tag") else 0
    names = tuple(f"name {number}" for number in range(named))
    convert(pretrained.Pretrained("random", model, heads, state, tokenizer, names), output)
    if oracle is not None:
        written_equals_theirs(model, head, tokenizer, output, oracle, names)


def written_equals_theirs(model, head, tokenizer, output, oracle, names) -> None:
    """The folder loaded by transformers and by us: equal outputs. `head`: of fine-tuned ones."""
    rng = np.random.default_rng(3)
    vocabulary = tokenizer.vocabulary
    if head:
        inputs = labelled(
            head, rng, 27, model.vocab_size, model.type_vocab_size, vocabulary.pad,
            model.num_labels,
        )  # fmt: skip
    else:
        inputs = unlabelled(rng, model, vocabulary.pad)
    given = {f"input/{name}": value for name, value in inputs.items()}
    np.savez(output.with_suffix(".npz"), **given)
    oracle("run", output, output.with_suffix(".npz"), output.with_suffix(".out.npz"))
    theirs = cases.load(output.with_suffix(".out.npz"))
    given["config"] = np.array((output / "config.json").read_text())
    found = read_folder(output)
    assert found.labels == names
    cases.compare(given | theirs, found)


def unlabelled(rng: np.random.Generator, model: EncoderConfig, pad: int) -> dict[str, np.ndarray]:
    """Rows as for pretraining, with labels of its objectives."""
    real = np.arange(27) < np.array([27, 8, 20, 3])[:, None]
    ids = rng.integers(5, model.vocab_size - 1, real.shape)
    return {
        "input_ids": np.where(real, ids, pad),
        "token_type_ids": rng.integers(0, model.type_vocab_size, real.shape) * real,
        "attention_mask": real.astype(np.int64),
        "labels": np.where(real & (rng.random(real.shape) < 0.5), ids, -100),
        "pair_labels": rng.integers(0, 2, 4),
    }


if __name__ == "__main__":
    main()
