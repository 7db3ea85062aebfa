"""What an objective is made of, and the sum of several over one encoder."""

from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key, Shaped

from bert_jax.models.config import EncoderConfig
from bert_jax.models.dropout import row_keys
from bert_jax.models.encoder import Encoder

Batch = dict[str, Shaped[Array, "B *field"]]
# A sum over the batch and the weight it is to be divided by, once, at the very end: sums and
# weights add up over devices and accumulated parts of a batch, means do not.
Ratio = tuple[Float[Array, ""], Float[Array, ""]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Losses:
    """What a module scored on a batch: a loss a term, metrics, plain counts, and tallies: vectors
    that evaluation adds up, which cost a train step nothing as it does not return them."""

    terms: dict[str, Ratio]
    metrics: dict[str, Ratio] = field(default_factory=dict)
    counts: dict[str, Float[Array, ""]] = field(default_factory=dict)
    tallies: dict[str, Float[Array, "V"]] = field(default_factory=dict)

    def __or__(self, other: "Losses") -> "Losses":
        return Losses(
            self.terms | other.terms, self.metrics | other.metrics, self.counts | other.counts,
            self.tallies | other.tallies,
        )  # fmt: skip


# Packed rows have position_ids beside them, which are read where a batch has them.
ENCODER_FIELDS = ("input_ids", "token_type_ids", "segment_ids", "rows")


@runtime_checkable
class Term(Protocol):
    """One thing to learn from the hidden states of a shared encoder."""

    @property
    def name(self) -> str: ...
    @property
    def fields(self) -> tuple[str, ...]:
        """What it reads of a batch, beside the encoder's own."""
        ...

    def head(self, config: EncoderConfig, rngs: nnx.Rngs) -> nnx.Module: ...

    def scored(self, length: int, slots: int) -> tuple[int, int]:
        """At how many of a row's positions its head scores the vocabulary, and gives one logit."""
        ...

    def loss(
        self, head: nnx.Module, encoder: Encoder, hidden: Float[Array, "B S D"], batch: Batch
    ) -> Losses: ...


class EncoderWithHeads(nnx.Module):
    """An encoder and one head a term, by the term's name."""

    def __init__(self, encoder: Encoder, heads: dict[str, nnx.Module]):
        self.encoder = encoder
        self.heads = nnx.Dict(heads)


@dataclass(frozen=True)
class SumOfTerms:
    """Σ coefficient · term over one encoder: mlm + nsp is Devlin et al. 2018, A.2."""

    terms: tuple[tuple[Term, float], ...]
    frozen: ClassVar[tuple[tuple[str, ...], ...]] = ()  # paths of what is not trained
    parts: ClassVar[tuple[str, ...]] = ("encoder",)  # what `--init` fills and `convert` writes

    @property
    def coefficients(self) -> dict[str, float]:
        return {term.name: coefficient for term, coefficient in self.terms}

    @property
    def fields(self) -> tuple[str, ...]:
        """The batch fields that `loss` reads."""
        return ENCODER_FIELDS + tuple(name for term, _ in self.terms for name in term.fields)

    def build(self, config: EncoderConfig, rngs: nnx.Rngs) -> EncoderWithHeads:
        encoder = Encoder(config, rngs)
        return EncoderWithHeads(
            encoder, {term.name: term.head(config, rngs) for term, _ in self.terms}
        )

    def loss(self, module: EncoderWithHeads, batch: Batch, key: Key[Array, ""] | None) -> Losses:
        """`key`: the step's dropout key; None turns dropout off. Batch shapes: input_ids,
        token_type_ids, segment_ids [B, S]; rows [B]; the terms' fields as they say; of packed
        rows position_ids [B, S]."""
        hidden = module.encoder(
            batch["input_ids"], batch["token_type_ids"], batch["segment_ids"],
            None if key is None else row_keys(key, batch["rows"]),
            position_ids=batch.get("position_ids"),
        )  # fmt: skip
        total = Losses({}, counts={"real_tokens": real_tokens(batch)})
        for term, _ in self.terms:
            total |= term.loss(module.heads[term.name], module.encoder, hidden, batch)
        return total

    def passes(
        self, config: EncoderConfig, length: int, slots: int
    ) -> tuple[tuple[EncoderConfig, int, int, bool], ...]:
        """The encoders that a row goes through, each with what its heads score (Term.scored) and
        whether it is trained."""
        scored = [term.scored(length, slots) for term, _ in self.terms]
        return ((config, sum(v for v, _ in scored), sum(one for _, one in scored), True),)

    def part(
        self, name: str, config: EncoderConfig, parameters: nnx.State
    ) -> tuple[EncoderConfig, nnx.State]:
        """The named part as an EncoderWithHeads has it, heads by the kind they are."""
        return config, parameters


def real_tokens(batch: Batch) -> Float[Array, ""]:
    return jnp.sum(batch["segment_ids"] > 0, dtype=jnp.float32)
