"""A generator and a discriminator over one text (Clark et al. 2020).

The generator is a masked language model. Its samples replace the masked tokens, and the
discriminator learns from the result. Sampling has no gradient: what the discriminator learns
reaches nothing of the generator but the embeddings that the two have in common.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from bert_jax.errors import UserError
from bert_jax.models.config import EncoderConfig
from bert_jax.models.dropout import fold, row_keys
from bert_jax.models.encoder import Encoder
from bert_jax.objectives.base import ENCODER_FIELDS, Batch, Losses, Term, real_tokens
from bert_jax.objectives.mlm import MaskedLanguageModel, word_embedding

TIES = ("all", "embeddings", "none")
MLM = MaskedLanguageModel()


@dataclass(frozen=True)
class GeneratorConfig:
    """The generator, where the objective has one. Section numbers are Clark et al. 2020."""

    width: float = 0.25  # 3.2: hidden size, heads and feed-forward, as a fraction of the encoder's
    tie: str = "embeddings"  # 3.2: what both have in common: all, embeddings or none

    def __post_init__(self):
        if self.tie not in TIES:
            raise UserError(f"generator.tie={self.tie!r}: must be one of {', '.join(TIES)}")
        if not 0 < self.width <= 1:
            raise UserError(f"generator.width={self.width}: must be above 0 and at most 1")
        if self.tie == "all" and self.width != 1:
            raise UserError(
                f"generator.tie=all needs equal sizes: set generator.width=1, it is {self.width}"
            )

    def encoder(self, config: EncoderConfig) -> EncoderConfig:
        """The generator's sizes. Its tables are as wide as the encoder's (3.2), so a narrower
        generator projects them."""
        heads = max(1, round(config.num_heads * self.width))
        hidden = round(config.hidden_size * self.width)
        if hidden % heads:
            raise UserError(
                f"generator.width={self.width} of model.hidden_size={config.hidden_size} and "
                f"model.num_heads={config.num_heads} is {hidden} over {heads} heads, which does "
                f"not divide; choose another fraction"
            )
        tables = config.embedding_width
        return replace(
            config,
            hidden_size=hidden,
            num_heads=heads,
            intermediate_size=max(1, round(config.intermediate_size * self.width)),
            embedding_size=config.embedding_size if hidden == config.hidden_size
            else tables if tables != hidden else 0,
            pooler=False,
        )  # fmt: skip


class GeneratorAndDiscriminator(nnx.Module):
    """`encoder` is the discriminator and owns what is tied; `generator` is None where all is.
    heads: mlm is the generator's, the other the discriminator's."""

    def __init__(self, encoder: Encoder, generator: Encoder | None, heads: dict[str, nnx.Module]):
        self.encoder = encoder
        self.generator = generator
        self.heads = nnx.Dict(heads)


@dataclass(frozen=True)
class ReplacedTokens:
    """mlm_coefficient · L_MLM(generator) + coefficient · L(discriminator) (Clark et al. 2020, 2).

    With an mlm_coefficient of 0 the generator is frozen: the second stage of the paper's two-stage
    training (3.2), which begins from a trained generator.
    """

    generator: GeneratorConfig
    mlm_coefficient: float
    term: Term
    coefficient: float
    parts: ClassVar[tuple[str, ...]] = ("discriminator", "generator")

    def __post_init__(self):
        if self.mlm_coefficient == 0 and self.generator.tie != "none":
            raise UserError(
                "objective.mlm=0 freezes the generator, which can then have nothing in common "
                "with the discriminator: set generator.tie=none, or give objective.mlm"
            )

    @property
    def coefficients(self) -> dict[str, float]:
        return {MLM.name: self.mlm_coefficient, self.term.name: self.coefficient}

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(ENCODER_FIELDS + MLM.fields + self.term.fields))

    def passes(
        self, config: EncoderConfig, length: int, slots: int
    ) -> tuple[tuple[EncoderConfig, int, int, bool], ...]:
        """As SumOfTerms.passes: the generator's and the discriminator's."""
        smaller = self.generator.encoder(config)
        return (
            (smaller, *MLM.scored(length, slots), self.mlm_coefficient > 0),
            (config, *self.term.scored(length, slots), True),
        )

    @property
    def frozen(self) -> tuple[tuple[str, ...], ...]:
        return () if self.mlm_coefficient else (("generator",), ("heads", MLM.name))

    def build(self, config: EncoderConfig, rngs: nnx.Rngs) -> GeneratorAndDiscriminator:
        encoder, smaller = Encoder(config, rngs), self.generator.encoder(config)
        tie = self.generator.tie
        generator = None
        if tie != "all":
            generator = Encoder(smaller, rngs, own_embeddings=tie == "none")
        heads = {MLM.name: MLM.head(smaller, rngs), self.term.name: self.term.head(config, rngs)}
        return GeneratorAndDiscriminator(encoder, generator, heads)

    def loss(
        self, module: GeneratorAndDiscriminator, batch: Batch, key: Key[Array, ""] | None
    ) -> Losses:
        """As SumOfTerms.loss. Without a key (evaluation) the samples are drawn under a fixed
        one, folded with `rows`."""
        fixed = jax.random.key(0, impl="threefry2x32") if key is None else key
        keys = row_keys(fixed, batch["rows"])
        generating, detecting = (None if key is None else fold(keys, n) for n in (0, 1))
        tables = module.encoder.embeddings
        generator = module.encoder if module.generator is None else module.generator
        inputs = batch["input_ids"], batch["token_type_ids"], batch["segment_ids"]
        places = batch.get("position_ids")
        hidden = generator(*inputs, generating, tables, places)
        owner = module.encoder if generator.embeddings is None else generator
        logits = module.heads[MLM.name](hidden, batch["mlm_positions"], word_embedding(owner))
        if not self.mlm_coefficient:  # times 0 it would still be computed backwards
            logits = jax.lax.stop_gradient(logits)
        losses = MLM.score(logits, batch) | Losses({}, counts={"real_tokens": real_tokens(batch)})

        samples = sample(jax.lax.stop_gradient(logits), fold(keys, 2))
        masked, original = put(batch, batch["mlm_labels"])
        _, corrupted = put(batch, samples)
        seen = batch | {"input_ids": corrupted, "original_ids": original, "masked": masked}
        hidden = module.encoder(corrupted, *inputs[1:], detecting, position_ids=places)
        return losses | self.term.loss(module.heads[self.term.name], module.encoder, hidden, seen)

    def part(
        self, name: str, config: EncoderConfig, parameters: nnx.State
    ) -> tuple[EncoderConfig, nnx.State]:
        """As SumOfTerms.part. The generator takes the tied tables with it."""
        heads = parameters["heads"]
        if name == "discriminator":
            kind = EXPORTED.get(self.term.name, self.term.name)
            found = {kind: heads[self.term.name]} if kind else {}
            return config, nnx.State({"encoder": parameters["encoder"], "heads": found})
        encoder = dict(parameters["encoder"])
        if self.generator.tie != "all":
            tables = {"embeddings": encoder["embeddings"]}
            encoder = tables | dict(parameters["generator"])
        encoder.pop("pooler", None)
        found = {"encoder": encoder, "heads": {MLM.name: heads[MLM.name]}}
        return self.generator.encoder(config), nnx.State(found)


# The kind of head that a term's is, where its name is another; a copying head is of no known kind.
EXPORTED = {"rtd_masked": "rtd", "replace_mlm": "mlm", "all_tokens_mlm": ""}


def sample(logits: Float[Array, "B K V"], keys: Key[Array, "B"] | None) -> Int[Array, "B K"]:
    """A token from each softmax, by Gumbel's trick: the argmax of logits + G, G = −log(−log u)."""
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
    sharding = jax.typeof(logits).sharding.spec
    return jnp.argmax(logits + jax.sharding.reshard(noise, sharding), axis=-1)


def put(batch: Batch, tokens: Int[Array, "B K"]) -> tuple[Bool[Array, "B S"], Int[Array, "B S"]]:
    """Where the used slots point to, and input_ids with the slots' tokens there."""
    places = jnp.arange(batch["input_ids"].shape[1])
    chosen = batch["mlm_positions"][..., None] == places
    chosen &= (batch["mlm_weights"] > 0)[..., None]  # unused slots point to place 0
    masked = jnp.any(chosen, axis=1)
    there = jnp.sum(jnp.where(chosen, tokens[..., None], 0), axis=1)
    return masked, jnp.where(masked, there, batch["input_ids"])
