"""What is learned. The only table from a term's name to its class."""

import math
from collections.abc import Mapping

from bert_jax.errors import UserError
from bert_jax.models.config import EncoderConfig
from bert_jax.objectives.base import SumOfTerms, Term
from bert_jax.objectives.mlm import MaskedLanguageModel
from bert_jax.objectives.sentence import NextSentence

TERMS: dict[str, Term] = {"mlm": MaskedLanguageModel(), "nsp": NextSentence()}


def build_objective(coefficients: Mapping[str, float], model: EncoderConfig) -> SumOfTerms:
    """The sum of the named terms, those of coefficient 0 left out.

    Raises UserError for an unknown term, for none, and for one that the encoder cannot feed.
    """
    for name in coefficients:
        if name not in TERMS:
            raise UserError(f"objective.{name}: no such term; there are {', '.join(TERMS)}")
    for name, value in coefficients.items():
        if not 0 <= value < math.inf:
            raise UserError(f"objective.{name}={value}: must be 0 (to leave it out) or more")
    wanted = {name: float(value) for name, value in coefficients.items() if value}
    if not wanted:
        raise UserError("objective: every term has coefficient 0; give one, as objective.mlm=1")
    if "nsp" in wanted and not model.pooler:
        raise UserError("objective.nsp needs the pooled first token: set model.pooler=true")
    return SumOfTerms(tuple((TERMS[name], value) for name, value in wanted.items()))
