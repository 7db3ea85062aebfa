"""The corpus of a study: prepared once, for all of its cells."""

from pathlib import Path

from bert_jax import progress
from bert_jax.config import RunConfig
from bert_jax.data.prepare import cached
from bert_jax.data.records import MANIFEST, read_manifest
from bert_jax.errors import UserError
from experiments.plan import Plan


def corpus_of(config: RunConfig, begun: Plan | None) -> tuple[str, str]:
    """The prepared folder and the digest of what it was made of: the folder that the study began
    with, while it is there, else the one of the cache, which every study, scale and family with
    the same text, vocabulary and cleaning shares.

    Raises UserError where the text is another one than when the study was begun.
    """
    if begun and (Path(begun.corpus) / MANIFEST).exists():
        folder = Path(begun.corpus)
    else:
        with progress.preparing() as report:
            folder = Path(cached(config.corpus, config.model.vocab_size, report)).resolve()
    digest = str(read_manifest(folder)["facts_sha256"])
    if begun and begun.corpus_sha256 != digest:
        raise UserError(
            f"{folder}: its text is another one than when the study was begun; bring the old one "
            f"back, or begin the study in another --workdir"
        )
    return str(folder), digest
