"""A corpus to a prepared folder: tokenizer, rows of both splits, manifest. Once for a corpus.

The work stands in a hidden folder beside the output: the tokenizer, then a part file for each
chunk of text, then all of them merged. What is finished there is not done again by a run that
takes up where a killed one ended. The manifest is written last and the folder appears under its
name only when it is whole, so nothing can be taken for finished that is not.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from etils import epath

import bert_jax
from bert_jax.data.config import CorpusConfig
from bert_jax.data.corpora import Corpus, SourceChanged
from bert_jax.data.fetch import cache, fetched
from bert_jax.data.index import load_array
from bert_jax.data.merge import SPLITS, UNIGRAM, Parts, merge
from bert_jax.data.parts import Chunk, Encoding, chunks
from bert_jax.data.records import FORMAT, MANIFEST, read_manifest, token_dtype
from bert_jax.data.sources.reading import Cleaning
from bert_jax.data.survey import Report, named_tokenizer, no_documents, survey
from bert_jax.data.tokenizers import TRAINERS, Tokenizer, load_tokenizer
from bert_jax.data.workers import cores, encode_all, part_file
from bert_jax.errors import UserError
from bert_jax.files import alone, write_whole
from bert_jax.store import reach, upload


def cached(config: CorpusConfig, vocab_size: int, report: Report, workers: int = 0) -> epath.Path:
    """The prepared folder of a corpus, made now unless it is in the cache or was named; one of a
    store is fetched into the cache."""
    if config.prepared:
        named = reach(config.prepared)
        check_tokenizer(named, vocab_size)
        return epath.Path(fetched(named, report))
    corpus = Corpus(config.source)
    facts = _facts(config, vocab_size, corpus)
    folder = epath.Path(cache()) / f"corpus-{_digest(facts)[:16]}"
    if not (folder / MANIFEST).exists():
        prepare(config, vocab_size, folder, report, workers, (corpus, facts))
    shutil.rmtree(_work_folder(Path(folder)), ignore_errors=True)  # of one killed at its very end
    return folder


def prepare_in_store(
    config: CorpusConfig, vocab_size: int, output: epath.Path, report: Report, workers: int = 0
) -> dict:
    """As `prepare`, by way of the cache: the manifest is uploaded last, and what an earlier try
    uploaded is not again."""
    if (output / MANIFEST).exists():
        raise _exists(output)
    folder = cached(replace(config, prepared=""), vocab_size, report, workers)
    upload(
        Path(folder), output, MANIFEST,
        lambda done, total: report("uploading (bytes)", done, 0, total),
    )  # fmt: skip
    return read_manifest(folder)


def passed_over(config: CorpusConfig, manifest: dict) -> str:
    """What a folder that was named makes of no use, where it says otherwise; '' where nothing is:
    fields that are not as they are by default, and not as the folder has them."""
    if not config.prepared:
        return ""
    unset, found = CorpusConfig(), []
    for name in vars(config):
        value, theirs = getattr(config, name), manifest.get(name, getattr(config, name))
        named = name == "tokenizer" and value not in TRAINERS  # in the folder's manifest as a hash
        if value not in (getattr(unset, name), theirs) and not named:
            found.append(f"corpus.{name}={value} (it has {theirs})")
    return f"note: {config.prepared} is read as it is, not with {', '.join(found)}" if found else ""


def check_tokenizer(folder: epath.PathLike, vocab_size: int) -> None:
    manifest = read_manifest(folder)
    found, tokenizer = manifest["vocab_size"], load_tokenizer(epath.Path(folder) / "tokenizer")
    if manifest["tokenizer_sha256"] != tokenizer.sha256:
        raise UserError(
            f"{folder}: its rows were made with another tokenizer than the one in it; bring back "
            f"that tokenizer, or prepare the corpus again"
        )
    facts = {"vocab_size": tokenizer.vocab_size, "special_tokens": _special(tokenizer)}
    if changed := [name for name, value in facts.items() if manifest[name] != value]:
        raise UserError(
            f"{folder}: {changed[0]} in its {MANIFEST} is not the tokenizer's; bring the file "
            f"back, or prepare the corpus again"
        )
    if found != vocab_size:
        raise UserError(
            f"{folder}: its tokenizer has {found} pieces but model.vocab_size={vocab_size}; set "
            f"model.vocab_size={found}, or prepare the corpus with the other size"
        )


def _special(tokenizer: Tokenizer) -> dict[str, int]:
    return {name: i for i, name in tokenizer.vocabulary.special_names.items()}


def token_counts(folder: epath.Path) -> np.ndarray:
    """How often each token stands in the training split, int64 [V]."""
    manifest = read_manifest(folder)
    try:
        counts = load_array(folder / UNIGRAM)
        if (counts.shape, counts.dtype) != ((manifest["vocab_size"],), np.int64):
            raise ValueError("is another file")
        if (found := counts.sum()) != (tokens := manifest["splits"]["train"]["tokens"]):
            raise ValueError(f"adds up to {found}, not to {tokens}")
        return counts
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / UNIGRAM}: damaged ({error}); delete the folder and prepare it again"
        ) from error


def prepare(
    config: CorpusConfig,
    vocab_size: int,
    output: epath.PathLike,
    report: Report,
    workers: int = 0,
    known: tuple[Corpus, dict] | None = None,
) -> dict:
    """Write the prepared folder `output`; returns its manifest. The same bytes for any number of
    `workers` (0: one a core), and however often it was killed and started again. `known`:
    the corpus and what the folder is a function of, where that was found out before: it means to
    read all sources.

    Raises UserError for an unreadable or empty corpus, and for one that a split would leave
    without documents.
    """
    output = Path(os.path.abspath(output))
    work = _work_folder(output)
    if output.exists():
        if (output / MANIFEST).exists():  # killed when there was nothing left but to clean up
            shutil.rmtree(work, ignore_errors=True)
        raise _exists(output)
    waiting = "waiting for another process that prepares the same"
    try:
        corpus = known[0] if known else Corpus(config.source)
        facts = known[1] if known else _facts(config, vocab_size, corpus)
        with alone(work, lambda: report(waiting, 0, 0, 0)) as lock:
            if (output / MANIFEST).exists():  # somebody else finished some work meanwhile
                shutil.rmtree(work, ignore_errors=True)
                manifest = read_manifest(output)
                if manifest["facts_sha256"] != _digest(facts):
                    raise _exists(output)
                return manifest
            _take_up(work, facts)
            try:
                _work(config, vocab_size, corpus, work, facts, report, workers or cores(), lock)
                (work / "whole").rename(output)
                shutil.rmtree(work)
            except SourceChanged:  # parts may be of one text and of the other
                shutil.rmtree(work / "done")
                raise
            finally:
                if not list((work / "done").glob("tokenizer")):  # nothing to go on from
                    shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{output}: the prepared corpus cannot be written ({error.strerror or error}); make "
            f"room or name another folder, and start again"
        ) from error
    return read_manifest(output)


def _work_folder(output: Path) -> Path:
    return output.parent / f".{output.name}.partial"


def _exists(output: epath.PathLike) -> UserError:
    return UserError(f"{output}: exists already; name a new folder, or delete it first")


def _digest(facts: dict) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _take_up(work: Path, facts: dict) -> None:
    """Leave in the folder what was done for the same facts, nothing else."""
    said = work / "work.json"
    if not said.exists() or json.loads(said.read_text()) != facts:
        for path in work.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != ".lock":
                path.unlink()
        write_whole(said, json.dumps(facts))
    (work / "done").mkdir(exist_ok=True)
    for path in (work / "done").glob("*.tmp"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(work / "whole", ignore_errors=True)


def _work(
    config: CorpusConfig, vocab_size: int, corpus: Corpus, work: Path, facts: dict,
    report: Report, workers: int, lock: int,
) -> None:  # fmt: skip
    """Make work/whole, by way of work/done."""
    done = work / "done"
    factors, size = survey(corpus, config, vocab_size, done, report)
    tokenizer = load_tokenizer(done / "tokenizer")
    dtype = token_dtype(vocab_size)
    cleaning = Cleaning(config.invalid_utf8)
    encoding = Encoding(str(done / "tokenizer"), dtype.str, config.held_out)
    count = documents = characters = 0

    def missing() -> Iterator[Chunk]:
        nonlocal count
        for chunk in chunks(corpus.documents(cleaning, factors, config.held_out)):
            count += 1
            if part_file(done, chunk.number).exists():
                tell(chunk)
            else:
                yield chunk

    def tell(chunk: Chunk) -> None:
        nonlocal documents, characters
        documents += len(chunk.documents)
        characters += sum(document.characters for document in chunk.documents)
        report("tokenizing", documents, characters, size)

    for chunk in encode_all(missing(), encoding, done, workers, lock):
        tell(chunk)
    parts = Parts([part_file(done, number) for number in range(count)], config.dedup)
    sizes = parts.sizes()
    for split in SPLITS:
        if not sizes[split]["tokens"]:
            shutil.rmtree(done)
            raise no_documents(config, split)
    whole = epath.Path(work / "whole")
    shutil.copytree(done / "tokenizer", whole / "tokenizer")
    shards = merge(
        parts, sizes, whole, dtype, vocab_size,
        lambda tokens, total: report("writing rows (tokens)", tokens, 0, total),
    )  # fmt: skip

    split_characters = [sizes[split].pop("characters") for split in SPLITS]
    manifest = {
        **facts,
        "facts_sha256": _digest(facts),
        "bert_jax": bert_jax.__version__,
        "dtype": dtype.str,
        "characters": sum(split_characters),
        "tokenizer_sha256": tokenizer.sha256,
        "special_tokens": _special(tokenizer),
        "times_read": factors,
        "found": dict(sorted(cleaning.counts.items())) | parts.counts,
        "splits": sizes,
        "shards": shards,
    }
    write_whole(Path(whole / MANIFEST), json.dumps(manifest, indent=2) + "\n")


def _facts(config: CorpusConfig, vocab_size: int, corpus: Corpus) -> dict:
    """All that a prepared folder is a function of."""
    loaded = named_tokenizer(config, vocab_size)
    tokenizer: dict[str, str | bool | int] = {
        "tokenizer": loaded.sha256 if loaded else config.tokenizer
    }
    if not loaded:
        tokenizer |= {"lowercase": config.lowercase, "special_tokens": config.special_tokens}
    if not loaded or config.new_pieces:
        tokenizer |= {"tokenizer_megabytes": config.tokenizer_megabytes}
    if config.new_pieces:
        tokenizer |= {"new_pieces": config.new_pieces}
    return {
        "format": FORMAT,
        "source": config.source,
        "fingerprint": corpus.fingerprint(),
        "held_out": config.held_out,
        "invalid_utf8": config.invalid_utf8,
        "dedup": config.dedup,
        "alpha": config.alpha,
        **tokenizer,
        "vocab_size": vocab_size,
    }
