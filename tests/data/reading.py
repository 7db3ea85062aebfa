"""A source's documents and fingerprint in one call, for tests."""

from bert_jax.data.corpora import Corpus
from bert_jax.data.sources.reading import Cleaning


def documents(source, cleaning=None):
    return Corpus(str(source)).documents(cleaning or Cleaning())


def fingerprint(source):
    return Corpus(str(source)).fingerprint()
