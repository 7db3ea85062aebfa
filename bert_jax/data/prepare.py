"""A corpus to a prepared folder: tokenizer, rows of both splits, manifest. Once for a corpus.

The manifest is written last and the folder appears under its name only when it is whole, so a
run that was killed leaves nothing that could be taken for finished.
"""

import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from etils import epath

from bert_jax.data import corpora
from bert_jax.data.config import CorpusConfig
from bert_jax.data.records import FORMAT, MANIFEST, RowWriter, read_manifest, token_dtype
from bert_jax.data.tokenizers import TRAINERS, Tokenizer, load_tokenizer, train_tokenizer
from bert_jax.data.vocabulary import SPELLINGS
from bert_jax.errors import UserError

UNIGRAM = "unigram.npy"
Report = Callable[[str, int], None]  # what is being done, and how many documents are done


def cached(config: CorpusConfig, vocab_size: int, report: Report) -> epath.Path:
    """The prepared folder of a corpus, made now unless it is in the cache or was named.

    The cache is $XDG_CACHE_HOME/bert_jax, or ~/.cache/bert_jax.
    """
    if config.prepared:
        check_tokenizer(config.prepared, vocab_size)
        return epath.Path(config.prepared)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    facts = {"format": FORMAT, **_decides(config, vocab_size)}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    folder = epath.Path(cache) / "bert_jax" / f"corpus-{digest}"
    if not (folder / MANIFEST).exists():
        prepare(config, vocab_size, folder, report)
    return folder


def check_tokenizer(folder: epath.PathLike, vocab_size: int) -> None:
    found = read_manifest(folder)["vocab_size"]
    if found != vocab_size:
        raise UserError(
            f"{folder}: its tokenizer has {found} pieces but model.vocab_size={vocab_size}; set "
            f"model.vocab_size={found}, or prepare the corpus with the other size"
        )


def token_counts(folder: epath.Path) -> np.ndarray:
    """How often each token stands in the training split, int64 [V]."""
    try:
        with (folder / UNIGRAM).open("rb") as file:
            return np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / UNIGRAM}: cannot be read; delete the folder and prepare it again"
        ) from error


def prepare(config: CorpusConfig, vocab_size: int, output: epath.PathLike, report: Report) -> dict:
    """Write the prepared folder `output`; returns its manifest.

    Raises UserError for an unreadable or empty corpus, and for one that a split would leave
    without documents.
    """
    output = epath.Path(output)
    if output.exists():
        raise UserError(f"{output}: exists already; name a new folder, or delete it first")
    scratch = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # Beside the output, so that the last rename stays inside one file system.
        scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
        manifest = _write(config, vocab_size, epath.Path(scratch), report)
        scratch.chmod(0o755)
        scratch.rename(output)
    except OSError as error:
        if (output / MANIFEST).exists():  # somebody else finished the same work meanwhile
            return read_manifest(output)
        raise UserError(
            f"{output}: the prepared corpus cannot be written ({error.strerror or error}); make "
            f"room or name another folder, and start again"
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return manifest


def _write(config: CorpusConfig, vocab_size: int, folder: epath.Path, report: Report) -> dict:
    tokenizer = _loaded(config, vocab_size) or _trained(config, vocab_size, report)
    tokenizer.save(folder / "tokenizer")
    dtype = token_dtype(vocab_size)
    splits = {name: RowWriter(folder, name, dtype) for name in ("train", "held_out")}
    unigram = np.zeros(vocab_size, np.int64)
    characters = 0
    for number, document in enumerate(corpora.documents(config.source)):
        split = "held_out" if _is_held_out(document, config) else "train"
        sentences = [s for paragraph in document.paragraphs for s in paragraph]
        characters += sum(map(len, sentences))
        # To RoBERTa's tokenizer a sentence after another begins with the space between them;
        # to those trained here it makes no difference.
        spaced = [*sentences[:1], *(" " + sentence for sentence in sentences[1:])]
        encoded = [ids for ids in tokenizer.encode(spaced) if ids]
        splits[split].add(number, encoded)
        if split == "train":
            for ids in encoded:
                unigram += np.bincount(ids, minlength=vocab_size)
        report("tokenizing", number + 1)
    for name, writer in splits.items():
        writer.close()
        if not writer.tokens:
            raise _empty(config, name)
    with (folder / UNIGRAM).open("wb") as file:
        np.save(file, unigram, allow_pickle=False)
    vocabulary = tokenizer.vocabulary
    manifest = {
        "format": FORMAT,
        **_decides(config, vocab_size),
        "dtype": dtype.str,
        "characters": characters,
        "tokenizer_sha256": tokenizer.sha256,
        "special_tokens": {
            name: getattr(vocabulary, role)
            for role, name in zip(SPELLINGS, vocabulary.names, strict=True)
        },
        "splits": {name: writer.counts for name, writer in splits.items()},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def _trained(config: CorpusConfig, vocab_size: int, report: Report) -> Tokenizer:
    training: Iterator[corpora.Document] = (
        d for d in corpora.documents(config.source) if not _is_held_out(d, config)
    )
    first = next(training, None)
    if first is None:
        raise _empty(config, "train")
    training = itertools.chain([first], training)
    return train_tokenizer(
        config.tokenizer,
        _sentences(training, lambda n: report("training the tokenizer", n)),
        vocab_size,
        config.lowercase,
        config.special_tokens,
    )


def _loaded(config: CorpusConfig, vocab_size: int) -> Tokenizer | None:
    """The tokenizer of the folder that was named, if one was: a workdir's, or a model's."""
    if config.tokenizer in TRAINERS:
        return None
    folder = epath.Path(config.tokenizer)
    if not folder.is_dir():
        raise UserError(
            f"corpus.tokenizer={config.tokenizer}: is none of {', '.join(TRAINERS)}, and no "
            f"folder of a tokenizer; name one of them"
        )
    inner = folder / "tokenizer"
    tokenizer = load_tokenizer(inner if inner.is_dir() else folder)
    if tokenizer.vocab_size != vocab_size:
        raise UserError(
            f"corpus.tokenizer={config.tokenizer}: has {tokenizer.vocab_size} ids but "
            f"model.vocab_size={vocab_size}; set model.vocab_size={tokenizer.vocab_size}"
        )
    return tokenizer


def _empty(config: CorpusConfig, split: str) -> UserError:
    return UserError(
        f"corpus.source={config.source}: no document falls into the {split} split (corpus.held_out="
        f"{config.held_out}); change that or bring more documents, a blank line between two"
    )


def _decides(config: CorpusConfig, vocab_size: int) -> dict:
    """All that a prepared folder is a function of."""
    loaded = _loaded(config, vocab_size)
    tokenizer: dict[str, str | bool] = {"tokenizer": loaded.sha256 if loaded else config.tokenizer}
    if not loaded:
        tokenizer |= {"lowercase": config.lowercase, "special_tokens": config.special_tokens}
    return {
        "source": config.source,
        "fingerprint": corpora.fingerprint(config.source),
        "held_out": config.held_out,
        **tokenizer,
        "vocab_size": vocab_size,
    }


def _is_held_out(document: corpora.Document, config: CorpusConfig) -> bool:
    return corpora.held_out(document.name, config.held_out)


def _sentences(
    documents: Iterator[corpora.Document], report: Callable[[int], None]
) -> Iterator[str]:
    for number, document in enumerate(documents):
        report(number + 1)
        for paragraph in document.paragraphs:
            yield from paragraph
