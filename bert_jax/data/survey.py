"""What is found out before the first chunk: how often each member of a corpus is read, how much
text that is, and the tokenizer.
"""

import json
from collections.abc import Callable
from pathlib import Path

from bert_jax.data.config import CorpusConfig
from bert_jax.data.corpora import Corpus
from bert_jax.data.extension import check_extensible, extend
from bert_jax.data.fast_tokenizer import FastTokenizer
from bert_jax.data.sampling import count_characters, sample, training_sentences
from bert_jax.data.tokenizers import TRAINERS, Tokenizer, load_tokenizer, train_tokenizer
from bert_jax.errors import UserError
from bert_jax.files import write_whole
from bert_jax.store import reach

# What is being done, how many documents and characters are done, and how many characters there
# are in all: 0 where that is not known.
Report = Callable[[str, int, int, int], None]


def survey(
    corpus: Corpus, config: CorpusConfig, vocab_size: int, done: Path, report: Report
) -> tuple[list[float], int]:
    """How many times each member is read, and how much text that is, 0 for unknown; the
    tokenizer is there when it returns."""
    path = done / "survey.json"
    if path.exists() and (done / "tokenizer").exists():
        return tuple(json.loads(path.read_text()))
    if corpus.needs_sizes and config.alpha != 1:
        raise UserError(
            f"corpus.alpha={config.alpha}: the shares in corpus.source={config.source} say already "
            f"how much is read of each; write them as times (2x), or leave out one of the two"
        )
    factors = [member.weight for member in corpus.members]
    size = 0
    if corpus.needs_sizes or (config.alpha != 1 and len(factors) > 1):
        counts = count_characters(
            corpus, config, lambda n, characters: report("measuring the text", n, characters, 0)
        )
        factors = corpus.factors(counts, config.alpha)
    tokenizer = named_tokenizer(config, vocab_size)
    if tokenizer is None or config.new_pieces:
        found = sample(
            corpus, config, factors, lambda n, c: report("sampling for the tokenizer", n, c, 0)
        )
        for split, count in (("train", len(found.documents)), ("held_out", found.held_out)):
            if not count:
                raise no_documents(config, split)
        size = found.all_characters
        of_sample = sum(document.characters for document in found.documents)
        sentences = training_sentences(
            found.documents,
            config.dedup,
            lambda n, c: report("training the tokenizer", n, c, of_sample),
        )
        if isinstance(tokenizer, FastTokenizer):
            tokenizer = extend(tokenizer, sentences, config.new_pieces)
        else:
            tokenizer = train_tokenizer(
                config.tokenizer, sentences, vocab_size, config.lowercase, config.special_tokens
            )
    write_whole(path, json.dumps([factors, size]))
    tokenizer.save(done / "tokenizer.tmp")
    (done / "tokenizer.tmp").rename(done / "tokenizer")
    return factors, size


def named_tokenizer(config: CorpusConfig, vocab_size: int) -> Tokenizer | None:
    """The tokenizer of the folder that was named, if one was: a workdir's, or a model's; without
    the pieces that are to come behind its own. Raises UserError where it does not fit."""
    if config.tokenizer in TRAINERS:
        if config.new_pieces:
            raise UserError(
                f"corpus.new_pieces={config.new_pieces}: come behind the pieces of a model's "
                f"tokenizer; name its folder in corpus.tokenizer, which is {config.tokenizer}"
            )
        return None
    folder = reach(config.tokenizer)
    if not folder.is_dir():
        raise UserError(
            f"corpus.tokenizer={config.tokenizer}: is none of {', '.join(TRAINERS)}, and no "
            f"folder of a tokenizer; name one of them"
        )
    inner = folder / "tokenizer"
    tokenizer = load_tokenizer(inner if inner.is_dir() else folder)
    size, and_new = tokenizer.vocab_size + config.new_pieces, ""
    if config.new_pieces:
        check_extensible(tokenizer, f"corpus.tokenizer={config.tokenizer}")
        and_new = f", with corpus.new_pieces={config.new_pieces} {size},"
    if size != vocab_size:
        raise UserError(
            f"corpus.tokenizer={config.tokenizer}: has {tokenizer.vocab_size} ids{and_new} but "
            f"model.vocab_size={vocab_size}; set model.vocab_size={size}"
        )
    return tokenizer


def no_documents(config: CorpusConfig, split: str) -> UserError:
    return UserError(
        f"corpus.source={config.source}: no document falls into the {split} split (corpus.held_out="
        f"{config.held_out}); change that or bring more documents, a blank line between two"
    )
