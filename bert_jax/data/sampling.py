"""One look at a whole corpus: how much text each member has, and a sample for the tokenizer."""

import heapq
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bert_jax.data.config import CorpusConfig
from bert_jax.data.corpora import Corpus, hashed, held_out
from bert_jax.data.parts import digest, sentences_of
from bert_jax.data.sources.reading import Cleaning, Document

Counted = Callable[[int, int], None]  # is told of documents and characters so far


def count_characters(corpus: Corpus, config: CorpusConfig, report: Counted) -> list[int]:
    """Of every member."""
    documents, characters = 0, [0] * len(corpus.members)
    for place, member in enumerate(corpus.members):
        for document in corpus.read(member, Cleaning(config.invalid_utf8)):
            documents += not document.part
            characters[place] += document.characters
            report(documents, sum(characters))
    return characters


class Sample(NamedTuple):
    documents: list[Document]  # in their order
    all_documents: int
    held_out: int  # documents
    all_characters: int


def sample(corpus: Corpus, config: CorpusConfig, factors: list[float], report: Counted) -> Sample:
    """Documents of the training split, at most corpus.tokenizer_megabytes million characters of
    them: all, or those of the smallest hashes of their names. Memory is bounded likewise."""
    room = config.tokenizer_megabytes * 1_000_000
    found: list[tuple[int, int, Document]] = []  # a heap, the largest hash first
    size = documents = kept_from = characters = 0
    everything = corpus.documents(Cleaning(config.invalid_utf8), factors, config.held_out)
    for place, document in enumerate(everything):
        documents += not document.part
        characters += document.characters
        report(documents, characters)
        if held_out(document.name, config.held_out):
            kept_from += not document.part
            continue
        chance = hashed(f"sample of {document.name} {document.part}")
        heapq.heappush(found, (-chance, -place, document))
        size += document.characters
        while size > room and len(found) > 1:
            size -= heapq.heappop(found)[-1].characters
    in_order = sorted(found, key=lambda entry: -entry[1])
    return Sample([document for *_, document in in_order], documents, kept_from, characters)


def training_sentences(documents: list[Document], dedup: bool, report: Counted) -> Iterator[str]:
    """Sentences of the documents, of each text once where `dedup` says so."""
    seen: set[bytes] = set()
    characters = 0
    for number, document in enumerate(documents, 1):
        sentences = sentences_of(document)
        characters += document.characters
        report(number, characters)
        if dedup:
            text = digest(document, sentences)
            if text in seen:
                continue
            seen.add(text)
        yield from sentences
