"""Prepared rows as a person reads them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from bert_jax import inspection
from bert_jax.config import RunConfig
from bert_jax.data.records import Rows
from bert_jax.data.tokenizers import load_tokenizer
from bert_jax.errors import UserError
from tests import tiny
from tests.test_programs import refused, start

CONFIG = RunConfig(model=tiny.MODEL, data=tiny.DATA)


def test_rows_are_shown_as_the_model_gets_them(corpus):
    legend, *shown = inspection.inspect(corpus.folder, CONFIG, 3)
    assert "masked" in legend.plain and len(shown) == 6
    pieces = load_tokenizer(corpus.folder / "tokenizer").piece
    rows = Rows(corpus.folder, "train")
    words = {pieces(int(i)) for i in np.concatenate(rows.read(np.arange(len(rows))))}
    for title, text in zip(shown[::2], shown[1::2], strict=True):
        masked = int(title.plain.split(" masked")[0].split()[-1])
        assert masked > 0 and text.plain.count("→") == text.plain.count("»") == masked
        assert "nsp: B" in title.plain
        assert text.plain.startswith("[CLS] ") and text.plain.count("[SEP]") == 2
        hidden = [part.split("→")[0] for part in text.plain.split("«")[1:]]
        assert set(hidden) <= words
        styles = {str(span.style) for span in text.spans}
        assert {"green", "cyan"} <= styles and any(style.startswith("reverse") for style in styles)


def test_format_and_masking_are_the_configs(corpus):
    data = replace(tiny.DATA, format="doc-sentences", pairs="none", mask_rate=0.0)
    _, title, text, *_ = inspection.inspect(corpus.folder, replace(CONFIG, data=data), 1)
    assert "0 masked" in title.plain and "nsp" not in title.plain and "«" not in text.plain


def test_each_phase_is_shown_and_what_found_no_slot(corpus):
    data = replace(tiny.DATA, phases="50%:16 50%:64::2")
    first, *one, second, title, _ = inspection.inspect(corpus.folder, replace(CONFIG, data=data), 1)
    assert "steps 1 on" in first.plain and "rows of 16" in first.plain and len(one) == 2
    assert "steps 500001 on" in second.plain and "rows of 64" in second.plain
    assert "2 masked (" in title.plain and "more had no slot" in title.plain
    assert "no slot" not in one[0].plain


def test_another_tokenizer_is_named(corpus, tmp_path):
    folder = shutil.copytree(corpus.folder, tmp_path / "copy")
    model = folder / "tokenizer" / "tokenizer.model"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(UserError, match="tokenizer"):
        list(inspection.inspect(folder, CONFIG, 1))


def test_damage_is_found_wherever_it_is(corpus, tmp_path):
    folder = shutil.copytree(corpus.folder, tmp_path / "copy")
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    tokens = manifest["splits"]["train"]["tokens"]
    for change, said in (
        ({"splits": {"train": manifest["splits"]["train"] | {"tokens": tokens + 1}}}, "adds up to"),
        ({"vocab_size": 201}, "vocab_size in its manifest.json is not the tokenizer's"),
        ({"special_tokens": {"[PAD]": 0}}, "special_tokens in its manifest.json is not"),
    ):
        path.write_text(json.dumps(manifest | change))
        with pytest.raises(UserError, match=said):
            list(inspection.inspect(folder, CONFIG, 1))
    path.write_text(json.dumps(manifest))
    (shard,) = folder.glob("rows-held_out*")
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match="was cut off"):
        list(inspection.inspect(folder, CONFIG, 1))


def test_the_program_shows_and_refuses(corpus, tmp_path):
    config = ["--config=configs/bert.py:tiny", *tiny.OVERRIDES]
    done = start("prepare", f"--inspect={corpus.folder}", "--n=2", *config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("example ") == 2 and "→[MASK]»" in done.stdout
    refused(start("prepare", f"--inspect={tmp_path}", *config), "not a prepared corpus")
    refused(start("prepare", f"--inspect={corpus.folder}", "--n=0", *config), "--n=0")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("one.txt", b"One document. It is alone.\n", "no document falls into the"),
        ("long.txt", b"Fine.\n\n" + b"word " * (1 << 22), "line 3 is longer than 16 MiB"),
        ("cut.jsonl", b'{"text": "Fine."}\n{"te', "line 2: is no JSON"),
        ("empty.jsonl", b'{"text": ""}\n' * 3, "no text in it"),
    ],
)
def test_a_source_that_cannot_be_prepared(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    done = start(
        "prepare", "--config=configs/bert.py:tiny", f"--output={tmp_path / 'out'}",
        f"--config.corpus.source={path}",
    )  # fmt: skip
    refused(done, said, name)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--config.corpus.alpha=2.0", "corpus.alpha=2.0"),
        ("--config.corpus.invalid_utf8=ignore", "must be one of fail, replace, skip"),
        ("--config.corpus.source=tfds:", "no such file"),
        ("--workers=-1", "--workers=-1"),
        ("--workers=9999", "processors for this program; set"),
    ],
)
def test_bad_words_to_prepare(corpus, tmp_path, argument, said):
    text = f"--config.corpus.source={corpus.text}"
    done = start(
        "prepare", "--config=configs/bert.py:tiny", f"--output={tmp_path / 'out'}", text, argument
    )
    refused(done, said)
    assert not list(tmp_path.iterdir())
