"""What fine-tuning learns: one head over an encoder, as an objective that the train step takes."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from bert_jax.models.adapters import PLAIN, AdaptConfig
from bert_jax.models.config import EncoderConfig
from bert_jax.models.dropout import dropout, fold, row_keys
from bert_jax.models.encoder import Encoder
from bert_jax.models.heads import HEADS
from bert_jax.models.sharding import RULES
from bert_jax.objectives.base import (
    ENCODER_FIELDS,
    Batch,
    EncoderWithHeads,
    Losses,
    real_tokens,
)  # fmt: skip

# The number of the head's dropout keys, where layers count from 1.
_AFTER_LAYERS = 1 << 16


@runtime_checkable
class Task(Protocol):
    """One kind of labels. Batches have, beside the encoder's fields, `labels` and `weights` (0 for
    what only fills them), of the shapes that it says."""

    @property
    def name(self) -> str:
        """That of its head, in models.heads.HEADS."""
        ...

    @property
    def pooled(self) -> bool:
        """Whether the head reads the pooled first token, else every token."""
        ...

    @property
    def dropped(self) -> bool:
        """Whether dropout comes before the head."""
        ...

    def score(self, logits: Float[Array, "B *each C"], batch: Batch) -> Losses:
        """The losses of the logits that the head gave."""
        ...


@dataclass(frozen=True)
class FineTuning:
    """Devlin et al. 2018, 3.2: the pretrained encoder, one new head, all of it trained; or, where
    `adapt` says so, the head and adapters in the encoder."""

    task: Task
    frozen: tuple[tuple[str, ...], ...] = ()  # paths of what is not trained
    adapt: AdaptConfig = PLAIN
    parts: ClassVar[tuple[str, ...]] = ("encoder",)

    @property
    def coefficients(self) -> dict[str, float]:
        return {self.task.name: 1.0}

    @property
    def fields(self) -> tuple[str, ...]:
        return (*ENCODER_FIELDS, "labels", "weights")

    def build(self, config: EncoderConfig, rngs: nnx.Rngs) -> EncoderWithHeads:
        return EncoderWithHeads(
            Encoder(config, rngs, adapt=self.adapt),
            {self.task.name: HEADS[self.task.name](config, rngs)},
        )

    def loss(self, module: EncoderWithHeads, batch: Batch, key: Key[Array, ""] | None) -> Losses:
        """`key`: the step's dropout key; None turns dropout off."""
        counts = Losses({}, counts={"real_tokens": real_tokens(batch)})
        return self.task.score(self.logits(module, batch, key), batch) | counts

    def logits(
        self, module: EncoderWithHeads, batch: Batch, key: Key[Array, ""] | None = None
    ) -> Float[Array, "B *each C"]:
        """float32: a row's [C], or every token's [S, C]. Of rows [B, C, S], C choices an example,
        the logit of each."""
        ids, types, segments = (
            batch[name] for name in ("input_ids", "token_type_ids", "segment_ids")
        )
        rows, choices = batch["rows"], ids.shape[1] if ids.ndim == 3 else 0
        if choices:
            ids, types, segments = _merge(ids), _merge(types), _merge(segments)
            rows = _numbered(rows, choices)
        keys = None if key is None else row_keys(key, rows)
        encoder: Encoder = module.encoder
        hidden = encoder(ids, types, segments, keys)
        if self.task.pooled:
            assert encoder.pooler is not None  # the program sets config.pooler
            hidden = encoder.pooler(hidden)
        if self.task.dropped:
            hidden = dropout(hidden, encoder.hidden_dropout, fold(keys, _AFTER_LAYERS))
        logits = module.heads[self.task.name](hidden)
        if not choices:
            return logits
        shape = (logits.shape[0] // choices, choices)
        return jax.lax.reshape(logits, shape, out_sharding=RULES.batch(2))

    def passes(
        self, config: EncoderConfig, length: int, slots: int
    ) -> tuple[tuple[EncoderConfig, int, int, bool], ...]:
        """As SumOfTerms.passes."""
        return ((config, 0, 0, True),)

    def part(
        self, name: str, config: EncoderConfig, parameters: nnx.State
    ) -> tuple[EncoderConfig, nnx.State]:
        """As SumOfTerms.part."""
        return config, parameters


def _merge(values: Int[Array, "B C S"]) -> Int[Array, "rows S"]:
    """The choices of an example after one another, on the device that has it."""
    shape = (values.shape[0] * values.shape[1], values.shape[2])
    return jax.lax.reshape(values, shape, out_sharding=RULES.batch(2))


def _numbered(rows: Int[Array, "B"], choices: int) -> Int[Array, "B*{choices}"]:
    numbers = rows[:, None] * choices + jnp.arange(choices)
    return jax.lax.reshape(numbers, (numbers.size,), out_sharding=RULES.batch(1))


def negative_log_likelihood(
    logits: Float[Array, "*rows C"], labels: Int[Array, "*rows"]
) -> Float[Array, "*rows"]:
    """−log softmax(logits) at the labels, in nats."""
    chosen = jnp.arange(logits.shape[-1]) == labels[..., None]
    shifted = logits - jnp.max(logits, axis=-1, keepdims=True)
    total = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
    return total - jnp.sum(jnp.where(chosen, shifted, 0), axis=-1)
