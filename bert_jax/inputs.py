"""What a run reads: its corpus as batches, the held-out part of it, and the facts of both."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from bert_jax import progress, summary
from bert_jax.config import RunConfig
from bert_jax.data.examples import build_examples
from bert_jax.data.loader import EvaluationBatches, PhasedBatches
from bert_jax.data.prepare import cached, passed_over, token_counts
from bert_jax.data.records import Rows, read_manifest
from bert_jax.data.share import WHOLE, Share
from bert_jax.data.tokenizers import Tokenizer, load_tokenizer
from bert_jax.data.unigram import unigram_loss
from bert_jax.data.workers import check_workers
from bert_jax.errors import UserError


@dataclass(frozen=True)
class Inputs:
    """`counts`: of each token in the training split. `unigram`: the loss on the evaluation's
    masked tokens of a model that knows these counts alone."""

    manifest: dict
    tokenizer: Tokenizer
    batches: PhasedBatches
    evaluation: EvaluationBatches
    counts: Int[np.ndarray, "V"]
    unigram: float
    description: str


def open_inputs(config: RunConfig, coefficients: Mapping[str, float], share: Share) -> Inputs:
    """The corpus that the config describes, prepared first where it is not yet; of its batches
    this host's share. Raises UserError where corpus, vocabulary and config do not go together."""
    check_workers("data.workers", config.data.workers)
    with progress.preparing() as report:
        folder = cached(config.corpus, config.model.vocab_size, report)
    data, types = config.data, config.model.type_vocab_size
    tokenizer = load_tokenizer(folder / "tokenizer")
    words = tokenizer.vocabulary
    if config.model.position_offset not in (0, words.pad + 1):
        raise UserError(
            f"model.position_offset={config.model.position_offset}: where positions have an offset "
            f"it is the padding's id + 1, and this vocabulary's is {words.pad}; set it to 0 or "
            f"{words.pad + 1}, or train the vocabulary with other corpus.special_tokens"
        )
    rows = Rows(folder, "train")
    by_length = {phase.data.sequence_length: phase.data for phase in config.phases}
    examples = {
        length: build_examples(rows, words, sizes, types) for length, sizes in by_length.items()
    }
    held_out = build_examples(Rows(folder, "held_out"), words, data, types, short_probability=0.0)
    if "nsp" in coefficients and any(e.one_sentence == len(e) for e in examples.values()):
        raise UserError(
            f"{folder}: every document is one sentence, so no segment has a true continuation; "
            f"set objective.nsp=0, or put sentences that belong together into one document"
        )
    batches = PhasedBatches(config.phases, examples, words, config.seed, share)
    counts, limit = token_counts(folder), config.train.eval_examples
    manifest = read_manifest(folder)
    # As many rows at a time as training has, which may go through a batch in parts.
    fewer = replace(data, batch_size=data.batch_size // config.train.accumulation)
    note = passed_over(config.corpus, manifest)
    return Inputs(
        manifest, tokenizer, batches,
        EvaluationBatches(held_out, fewer, words, limit, share),
        counts, unigram_loss(EvaluationBatches(held_out, data, words, limit, WHOLE), counts),
        summary.corpus(folder, manifest, held_out) + "\n"
        + summary.phases(config.phases, batches, examples) + (note and f"\n{note}"),
    )  # fmt: skip
