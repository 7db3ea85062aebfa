"""A corpus on disk: whole or not there, the same every time, splits apart."""

import json

import numpy as np
import pytest
from etils import epath

from bert_jax.data import corpora
from bert_jax.data.config import CorpusConfig
from bert_jax.data.fast_tokenizer import FastTokenizer
from bert_jax.data.prepare import UNIGRAM, cached, prepare
from bert_jax.data.records import FORMAT, ROW_TOKENS, Rows, RowWriter, read_manifest
from bert_jax.data.tokenizers import load_tokenizer, train_tokenizer
from bert_jax.errors import UserError
from tests import tiny


def quiet(what, documents):
    pass


def config_of(corpus, **changes):
    """As tests/tiny.py prepared it."""
    facts = {"source": str(corpus.text), "held_out": 0.3, "tokenizer": "sentencepiece"}
    return CorpusConfig(**facts | changes)


def decoded(folder, split):
    tokenizer, rows = load_tokenizer(folder / "tokenizer"), Rows(folder, split)
    return [tokenizer.decode(ids.tolist()) for ids in rows.read(np.arange(len(rows)))]


def test_rows_hold_the_documents_of_their_split(corpus):
    texts = {"train": [], "held_out": []}
    for document in corpora.documents(str(corpus.text)):
        split = "held_out" if corpora.held_out(document.name, 0.3) else "train"
        texts[split].append(" ".join(s for p in document.paragraphs for s in p).lower())
    assert texts["train"] and texts["held_out"]
    for split, expected in texts.items():
        assert decoded(corpus.folder, split) == expected


def test_manifest_counts_what_is_there(corpus):
    manifest = read_manifest(corpus.folder)
    rows = Rows(corpus.folder, "train")
    tokens = np.concatenate(rows.read(np.arange(len(rows))))
    assert manifest["splits"]["train"]["tokens"] == len(tokens)
    assert manifest["splits"]["train"]["sentences"] == len(rows.index.sentence_lengths)
    assert rows.index.sentence_lengths.sum() == len(tokens)
    with open(corpus.folder / UNIGRAM, "rb") as file:
        counts = np.load(file)
    np.testing.assert_array_equal(counts, np.bincount(tokens, minlength=tiny.VOCAB))
    assert manifest["tokenizer"] == "sentencepiece"
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert manifest["special_tokens"] == {name: number for number, name in enumerate(names)}


def test_preparing_twice_gives_the_same_bytes(corpus, tmp_path):
    again = tmp_path / "again"
    prepare(config_of(corpus), tiny.VOCAB, again, quiet)
    files = sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert len(files) >= 8
    for name in files:
        assert (again / name).read_bytes() == (corpus.folder / name).read_bytes(), name


def test_a_long_document_becomes_several_rows(tmp_path):
    writer = RowWriter(epath.Path(tmp_path), "train", np.dtype("<u2"))
    sentences = [[n % 100 + 5] * 999 for n in range(20)] + [[7] * (ROW_TOKENS + 10)]
    writer.add(3, sentences)
    writer.close()
    (tmp_path / "manifest.json").write_text(
        json.dumps(
            {
                "format": FORMAT,
                "vocab_size": 200,
                "dtype": "<u2",
                "splits": {"train": writer.counts},
            }
        )
    )
    rows = Rows(tmp_path, "train")
    found = rows.read(np.arange(len(rows)))
    assert max(map(len, found)) <= ROW_TOKENS and len(found) > 4
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(sentences))
    assert (rows.index.documents == 3).all()


def test_the_cache_prepares_once(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = config_of(corpus)
    calls = []
    first = cached(config, tiny.VOCAB, lambda what, n: calls.append(n))
    assert calls and cached(config, tiny.VOCAB, quiet) == first
    calls.clear()
    cached(config, tiny.VOCAB, lambda what, n: calls.append(n))
    assert not calls
    other = config_of(corpus, held_out=0.4)
    assert cached(other, tiny.VOCAB, quiet) != first


def test_what_decides_the_tokenizer_decides_the_cache(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    changes = [
        {},
        {"tokenizer": "wordpiece"},
        {"lowercase": False},
        {"special_tokens": "<s> <pad> </s> <unk> ... <mask>"},
        {"tokenizer": str(corpus.folder)},
    ]
    folders = [cached(config_of(corpus, **c), tiny.VOCAB, quiet) for c in changes]
    assert len(set(folders)) == len(changes)
    special = read_manifest(folders[3])["special_tokens"]
    assert special == {"<pad>": 1, "<unk>": 3, "<s>": 0, "</s>": 2, "<mask>": tiny.VOCAB - 1}


@pytest.mark.parametrize("kind, size", [("wordpiece", 200), ("bpe", 400)])
def test_every_kind_of_tokenizer(corpus, tmp_path, kind, size):
    output = tmp_path / "prepared"
    config = config_of(corpus, tokenizer=kind)
    manifest = prepare(config, size, output, quiet)
    assert manifest["vocab_size"] == load_tokenizer(output / "tokenizer").vocab_size == size
    for split in ("train", "held_out"):
        assert decoded(output, split) == decoded(corpus.folder, split)
    prepare(config, size, tmp_path / "again", quiet)
    files = [path for path in output.rglob("*") if path.is_file()]
    assert len(files) >= 8
    for path in files:
        again = tmp_path / "again" / path.relative_to(output)
        assert again.read_bytes() == path.read_bytes(), path


def test_a_tokenizer_can_be_taken_as_it_is(corpus, tmp_path):
    """From its own folder, and from what has it in a folder tokenizer; its path does not count."""
    manifests = []
    for number, folder in enumerate([corpus.folder, corpus.folder / "tokenizer"]):
        config = config_of(corpus, tokenizer=str(folder), lowercase=bool(number))
        output = tmp_path / f"prepared{number}"
        manifests.append(prepare(config, tiny.VOCAB, output, quiet))
        assert decoded(output, "train") == decoded(corpus.folder, "train")
    assert manifests[0] == manifests[1]
    trained = read_manifest(corpus.folder)
    assert manifests[0]["tokenizer"] == trained["tokenizer_sha256"]
    assert manifests[0]["special_tokens"] == trained["special_tokens"]
    with pytest.raises(UserError, match="set model.vocab_size=200"):
        prepare(config, 300, tmp_path / "other", quiet)
    for wrong in ("byte-pairs", str(corpus.text)):
        with pytest.raises(UserError, match="corpus.tokenizer=.*wordpiece, sentencepiece, bpe"):
            prepare(config_of(corpus, tokenizer=wrong), tiny.VOCAB, tmp_path / "other", quiet)


def test_a_sentence_after_another_has_a_space_before_it(corpus, tmp_path):
    """To a tokenizer that puts none before a text, as RoBERTa's, only a document's first word is
    without one."""
    trained = train_tokenizer("bpe", tiny.sentences(400), 400, True, "<s> <pad> </s> <unk> <mask>")
    description = json.loads(trained.to_json())
    description["pre_tokenizer"]["add_prefix_space"] = False
    tokenizer = FastTokenizer(description)
    tokenizer.save(tmp_path / "roberta")
    prepare(config_of(corpus, tokenizer=str(tmp_path / "roberta")), 400, tmp_path / "out", quiet)
    rows = Rows(tmp_path / "out", "train")
    (first,) = rows.read(np.array([0]))
    ends = np.cumsum(rows.index.sentence_lengths[rows.index.sentences(0)])
    begins = [tokenizer.piece(int(first[place]))[0] for place in [0, *ends[:-1]]]
    assert begins[0] != "Ġ" and set(begins[1:]) == {"Ġ"}


def test_an_interrupted_prepare_leaves_nothing(corpus, tmp_path):
    def interrupt(what, documents):
        if what == "tokenizing" and documents == 5:
            raise KeyboardInterrupt

    output = tmp_path / "prepared"
    with pytest.raises(KeyboardInterrupt):
        prepare(config_of(corpus), tiny.VOCAB, output, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_folder_is_named(corpus, tmp_path):
    import shutil

    folder = shutil.copytree(corpus.folder, tmp_path / "copy")
    np.save(folder / "train-row_ends.npy", np.arange(3))
    np.save(folder / "train-documents.npy", np.arange(3, dtype=np.int32))
    with pytest.raises(UserError, match="damaged"):
        Rows(folder, "train")
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="not a prepared corpus"):
        Rows(folder, "train")
    with pytest.raises(UserError, match="not a prepared corpus"):
        cached(CorpusConfig(prepared=str(folder)), tiny.VOCAB, quiet)


def test_a_vocabulary_of_another_size_is_named(corpus):
    with pytest.raises(UserError, match="set model.vocab_size=200"):
        cached(CorpusConfig(prepared=str(corpus.folder)), 512, quiet)


def test_an_output_that_is_there_is_kept(corpus):
    with pytest.raises(UserError, match="exists already"):
        prepare(CorpusConfig(source=str(corpus.text)), tiny.VOCAB, corpus.folder, quiet)


@pytest.mark.parametrize("text", ["", "\n\n\n", "One sentence is here.\n"])
def test_an_empty_corpus_is_refused(text, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(text)
    with pytest.raises(UserError):
        prepare(CorpusConfig(source=str(path)), tiny.VOCAB, tmp_path / "out", quiet)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["text.txt"]
