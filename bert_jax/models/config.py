"""What an encoder is: every switch, with the paper that introduced it."""

from dataclasses import dataclass

from bert_jax.errors import UserError

ACTIVATIONS = ("gelu", "gelu_tanh", "relu")
POOLER_ACTIVATIONS = ("tanh", "gelu")
# The parts of a block that `share` makes common to all layers, each with the norm after it.
_ATTENTION, _FEEDFORWARD = ("attention", "attention_norm"), ("feedforward", "feedforward_norm")
SHARED: dict[str, tuple[str, ...]] = {
    "none": (),
    "attention": _ATTENTION,
    "feedforward": _FEEDFORWARD,
    "all": _ATTENTION + _FEEDFORWARD,
}
DTYPES = ("float32", "bfloat16")
REMAT = ("none", "full", "dots")
ATTENTION = ("einsum", "splash", "cudnn", "auto")
_MOST_PIECES = 1 << 22  # four times the largest vocabulary that was published


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and switches of an encoder. Section numbers are Devlin et al. 2018 unless named."""

    vocab_size: int = 30522  # true size: exports and counts use it
    hidden_size: int = 768  # H in section 3
    # E of Lan et al. 2020, 3.1: tables of width E and a projection to hidden_size; 0: no
    # projection, the tables are as wide as the hidden states.
    embedding_size: int = 0
    num_layers: int = 12  # L
    share: str = "none"  # what all layers have in common (Lan et al. 2020, 3.1 and table 4)
    num_heads: int = 12  # A
    intermediate_size: int = 3072  # 4H, section 3, footnote 3
    max_positions: int = 512  # learned positions, section 3 "Input/Output Representations"
    position_offset: int = 0  # rows of the table before the first; 2 in fairseq's, of no use
    type_vocab_size: int = 2  # sentence A and sentence B; 1 where all tokens are of one type
    activation: str = "gelu"  # A.2; the erf form, as in the released code; gelu_tanh: GPT's
    hidden_dropout: float = 0.1  # A.2: on all layers
    attention_dropout: float = 0.1  # A.2: on attention probabilities too
    layer_norm_epsilon: float = 1e-12  # released code
    initializer_stddev: float = 0.02  # released code: truncated normal
    pooler: bool = True  # dense and tanh over [CLS]: the C of section 3
    # Of the pooler; where there is none, of the one that fine-tuning adds (ELECTRA's code: gelu).
    pooler_activation: str = "tanh"
    num_labels: int = 0  # what the head of a fine-tuned model tells apart; pretraining has none
    vocab_multiple: int = 128  # inside, V is padded to a multiple of this; never set by the mesh
    dtype: str = "float32"  # of the arithmetic; parameters are always float32
    scan_layers: bool = True  # one compiled block for all layers; False unrolls them
    # What computes attention: einsum (the only one with attention_dropout), splash on a TPU, cudnn
    # on a GPU; auto takes the platform's where it can (models/kernels.py). Decides no parameter.
    attention: str = "einsum"
    # What the backward pass computes again instead of storing it: none, full (all inside a block)
    # or dots (all but its matrix products with parameters).
    remat: str = "none"

    def __post_init__(self):
        for name in (
            "vocab_size",
            "hidden_size",
            "num_layers",
            "num_heads",
            "intermediate_size",
            "max_positions",
            "type_vocab_size",
            "vocab_multiple",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name}={getattr(self, name)}: must be 1 or more")
        if self.vocab_size > _MOST_PIECES:  # a tokenizer's trainer would end without a word
            raise UserError(f"model.vocab_size={self.vocab_size}: must be {_MOST_PIECES} or less")
        for name in ("embedding_size", "position_offset", "num_labels"):
            if getattr(self, name) < 0:
                raise UserError(f"model.{name}={getattr(self, name)}: must be 0 or more")
        if self.hidden_size % self.num_heads:
            raise UserError(
                f"model.hidden_size={self.hidden_size} is not divisible by "
                f"model.num_heads={self.num_heads}: choose a multiple of the number of heads"
            )
        for name in ("layer_norm_epsilon", "initializer_stddev"):
            if not getattr(self, name) > 0:
                raise UserError(f"model.{name}={getattr(self, name)}: must be above 0")
        for name in ("hidden_dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"model.{name}={getattr(self, name)}: must be in [0, 1)")
        for name, choices in (
            ("activation", ACTIVATIONS), ("pooler_activation", POOLER_ACTIVATIONS),
            ("dtype", DTYPES), ("remat", REMAT), ("share", SHARED), ("attention", ATTENTION),
        ):  # fmt: skip
            if getattr(self, name) not in choices:
                raise UserError(
                    f"model.{name}={getattr(self, name)!r}: must be one of {', '.join(choices)}"
                )

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def embedding_width(self) -> int:
        """Of the tables, and of what the masked-token head scores against them."""
        return self.embedding_size or self.hidden_size

    @property
    def padded_vocab_size(self) -> int:
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple
