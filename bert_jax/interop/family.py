"""What a family is to the two directions of a conversion."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bert_jax.errors import UserError
from bert_jax.interop.rows import Row, dense
from bert_jax.models.config import EncoderConfig

# Ours and theirs, in config.json; a family adds its own.
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
}
RATES = {
    "type_vocab_size": "type_vocab_size",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "layer_norm_epsilon": "layer_norm_eps",
    "initializer_stddev": "initializer_range",
}
ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu",
}  # fmt: skip
# What would change the arithmetic and has no switch here, by the value that does not.
UNSUPPORTED = {
    "position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One architecture of transformers.

    `heads`: rows of each head by our name for it. `architectures`: their class for a set of
    heads. `aliases`: names that a file may repeat another tensor under. `fits`: why an encoder
    with these heads is none of this family, '' where it is one. `pooler`: under which name that
    stands, '' for none; `poolers`: of a head that has its own. `only`: of a head, the values of
    config.json that it is read with.
    """

    model_types: tuple[str, ...]
    prefix: str
    body: Callable[[EncoderConfig], list[Row]]
    heads: Mapping[str, Callable[[EncoderConfig], list[Row]]]
    architectures: Mapping[tuple[str, ...], str]
    aliases: Mapping[str, str]
    fits: Callable[[EncoderConfig, tuple[str, ...]], str]
    # Beyond the names above: their values to ours and back.
    more_ours: Callable[[Mapping[str, Any]], dict[str, Any]]
    more_theirs: Callable[[EncoderConfig], dict[str, Any]]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    pooler: str = ""
    poolers: Mapping[str, str] = field(default_factory=dict)
    pooler_activation: str = "tanh"
    only: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def rows(self, config: EncoderConfig, heads: tuple[str, ...]) -> list[Row]:
        pooler = dense("encoder.pooler", self.pooler_of(heads)) if config.pooler else []
        of_heads = [row for head in heads for row in self.heads[head](config)]
        return [*self.body(config), *pooler, *of_heads]

    def pooler_of(self, heads: tuple[str, ...]) -> str:
        return next((self.poolers[head] for head in heads if head in self.poolers), self.pooler)

    def why_not(self, config: EncoderConfig, heads: tuple[str, ...]) -> str:
        """Why an encoder with these heads is none of this family; '' where it is one."""
        return because(
            (config.pooler and not self.pooler_of(heads), "it has no pooler"),
            (
                config.pooler and config.pooler_activation != self.pooler_activation,
                f"its pooler's activation is {self.pooler_activation}, not "
                f"{config.pooler_activation}",
            ),
        ) or self.fits(config, heads)

    def to_ours(
        self, values: Mapping[str, Any], heads: tuple[str, ...], pooler: bool, num_labels: int
    ) -> EncoderConfig:
        """Raises UserError for what is missing, of a wrong type, or not to be had here."""
        values = dict(type_vocab_size=2, layer_norm_eps=1e-12, initializer_range=0.02) | (
            dict(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1) | dict(self.defaults)
        ) | dict(values)  # fmt: skip
        for name, plain in UNSUPPORTED.items():
            if values.get(name, plain) not in (plain, None):
                raise UserError(f"config.json: {name}={values[name]!r} is not supported")
        for name, only in ((n, o) for head in heads for n, o in self.only.get(head, {}).items()):
            if values.get(name, only) != only:
                raise UserError(f"config.json: {name}={values[name]!r} is not supported")
        activation = values.get("hidden_act", "gelu")
        if activation not in ACTIVATIONS:
            raise UserError(
                f"config.json: hidden_act={activation!r} is not supported; of those here are "
                f"{', '.join(ACTIVATIONS)}"
            )
        names = SIZES | RATES
        missing = [theirs for theirs in names.values() if theirs not in values]
        if missing:
            raise UserError(f"config.json: has no {missing[0]}")
        found = {ours: values[theirs] for ours, theirs in names.items()}
        found |= self.more_ours(values)
        for ours, value in found.items():
            wanted = type(getattr(EncoderConfig(), ours))
            if wanted is float and type(value) is int:
                found[ours] = float(value)
            elif type(value) is not wanted:
                raise UserError(f"config.json: {names.get(ours, ours)}={value!r} is not of type "
                                f"{wanted.__name__}")  # fmt: skip
        return EncoderConfig(
            **found, activation=ACTIVATIONS[activation], pooler=pooler,
            pooler_activation=self.pooler_activation, num_labels=num_labels,
        )  # fmt: skip

    def to_theirs(self, config: EncoderConfig, heads: tuple[str, ...]) -> dict[str, Any]:
        by_ours = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
        return {
            "architectures": [self.architectures[heads]],
            "model_type": self.model_types[0],
            **{theirs: getattr(config, ours) for ours, theirs in (SIZES | RATES).items()},
            "hidden_act": by_ours[config.activation],
            **self.more_theirs(config),
            "tie_word_embeddings": True,
            "dtype": "float32",
        }


def because(*reasons: tuple[bool, str]) -> str:
    """The first reason that holds."""
    return next((reason for holds, reason in reasons if holds), "")
