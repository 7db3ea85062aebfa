"""What is learned. The only tables from a term's name to what it is."""

import math
from collections.abc import Mapping, Sequence

from flax import nnx

from bert_jax.errors import UserError
from bert_jax.models.adapters import PLAIN, AdaptConfig
from bert_jax.models.config import EncoderConfig
from bert_jax.models.encoder import Encoder
from bert_jax.models.heads import HEADS
from bert_jax.objectives.base import EncoderWithHeads, SumOfTerms, Term
from bert_jax.objectives.mlm import MaskedLanguageModel
from bert_jax.objectives.replaced import AllTokensMlm, ReplacedTokenDetection
from bert_jax.objectives.rtd import GeneratorConfig, ReplacedTokens
from bert_jax.objectives.sentence import SegmentRelation

# Learned from the text as it was masked, any of them together.
TERMS: dict[str, Term] = {
    "mlm": MaskedLanguageModel(),
    "nsp": SegmentRelation("nsp"),
    "sop": SegmentRelation("sop"),
}
# Learned from the text with a generator's samples in it: one of them, beside the generator's mlm.
REPLACED_TERMS: dict[str, Term] = {
    "rtd": ReplacedTokenDetection(),
    "rtd_masked": ReplacedTokenDetection("rtd_masked", masked_only=True),
    "replace_mlm": MaskedLanguageModel("replace_mlm"),
    "all_tokens_mlm": AllTokensMlm(),
}
Objective = SumOfTerms | ReplacedTokens


def build_pretrained(
    config: EncoderConfig, heads: Sequence[str], rngs: nnx.Rngs, adapt: AdaptConfig = PLAIN
) -> EncoderWithHeads:
    """An encoder and the named heads, whatever it was trained with: what is used, converted and
    begun from."""
    return EncoderWithHeads(
        Encoder(config, rngs, adapt=adapt), {name: HEADS[name](config, rngs) for name in heads}
    )


def build_objective(
    coefficients: Mapping[str, float],
    model: EncoderConfig,
    generator: GeneratorConfig = GeneratorConfig(),  # noqa: B008, it is frozen
) -> Objective:
    """The sum of the named terms, those of coefficient 0 left out.

    Raises UserError for an unknown term, for none, for terms that do not go together, and for one
    that the encoder cannot feed.
    """
    known = TERMS | REPLACED_TERMS
    for name in coefficients:
        if name not in known:
            raise UserError(f"objective.{name}: no such term; there are {', '.join(known)}")
    for name, value in coefficients.items():
        if not 0 <= value < math.inf:
            raise UserError(f"objective.{name}={value}: must be 0 (to leave it out) or more")
    wanted = {name: float(value) for name, value in coefficients.items() if value}
    if not wanted:
        raise UserError("objective: every term has coefficient 0; give one, as objective.mlm=1")
    for name in ("nsp", "sop"):
        if name in wanted and not model.pooler:
            raise UserError(f"objective.{name} needs the pooled first token: set model.pooler=true")
    replaced = [name for name in wanted if name in REPLACED_TERMS]
    if not replaced:
        return SumOfTerms(tuple((TERMS[name], value) for name, value in wanted.items()))
    others = [name for name in wanted if name not in (replaced[0], "mlm")]
    if others:
        raise UserError(
            f"objective.{replaced[0]} goes with objective.mlm, the generator's, and no other; set "
            f"{' and '.join(f'objective.{name}=0' for name in others)}"
        )
    generator.encoder(model)  # a fraction that does not divide is told now
    return ReplacedTokens(
        generator, wanted.get("mlm", 0.0), REPLACED_TERMS[replaced[0]], wanted[replaced[0]]
    )


def encoders_of(objective: Objective, config: EncoderConfig) -> list[EncoderConfig]:
    """Of all that a row goes through: with a generator there are two."""
    return [encoder for encoder, *_ in objective.passes(config, length=1, slots=1)]
