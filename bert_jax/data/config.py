"""What is read and how it becomes batches: two sets of switches, with their papers."""

from dataclasses import dataclass

from bert_jax.errors import UserError

INVALID_UTF8 = ("fail", "replace", "skip")


@dataclass(frozen=True)
class CorpusConfig:
    """What `prepare` needs to know beside the vocabulary's size."""

    source: str = "installed-docs"  # or files, datasets, mixtures (data/sources/grammar.py)
    prepared: str = ""  # a folder that prepare wrote; '' prepares `source` once, in the cache
    held_out: float = 0.1  # share of documents kept from training, by a hash of their names
    lowercase: bool = True  # BERT's uncased models
    # Trained on the corpus: wordpiece, sentencepiece or bpe (byte-level); or the folder of a
    # tokenizer, a workdir or a Hugging Face model, to take it as it is.
    tokenizer: str = "wordpiece"
    # So many pieces of the domain, learned on the corpus, behind those of a tokenizer that is taken
    # from a folder (data/extension.py); model.vocab_size counts them too.
    new_pieces: int = 0
    # Of a tokenizer trained here, in the order of their ids; what follows '...' comes last of all.
    special_tokens: str = "[PAD] [UNK] [CLS] [SEP] [MASK]"
    # A tokenizer is trained on so much text at most, of documents chosen by a hash of their names.
    tokenizer_megabytes: int = 64
    # Members of a mixture are sampled with p ∝ n^alpha (Conneau et al. 2020, 3.1: 0.3); 1 leaves
    # them as they are.
    alpha: float = 1.0
    dedup: bool = False  # keep one of the documents that have exactly the same text
    invalid_utf8: str = "fail"  # or replace (by U+FFFD), or skip (the document)

    def __post_init__(self):
        if not 0 < self.held_out < 1:
            raise UserError(f"corpus.held_out={self.held_out}: must be between 0 and 1")
        if not 0 <= self.alpha <= 1:
            raise UserError(f"corpus.alpha={self.alpha}: must be between 0 and 1")
        if self.tokenizer_megabytes < 1:
            raise UserError(
                f"corpus.tokenizer_megabytes={self.tokenizer_megabytes}: must be 1 or more"
            )
        if self.new_pieces < 0:
            raise UserError(f"corpus.new_pieces={self.new_pieces}: must be 0 or more")
        if self.invalid_utf8 not in INVALID_UTF8:
            raise UserError(
                f"corpus.invalid_utf8={self.invalid_utf8!r}: must be one of "
                f"{', '.join(INVALID_UTF8)}"
            )


FORMATS = ("segment-pair", "sentence-pair", "full-sentences", "doc-sentences")
PAIRS = ("nsp", "sop", "none")
MASK_UNITS = ("token", "whole-word", "span", "ngram")
MASK_ROUNDINGS = ("stochastic", "nearest")
_MOST = 1 << 20  # rows of a batch, slots of a row


@dataclass(frozen=True)
class DataConfig:
    """How prepared rows become batches. Section numbers are Devlin et al. 2018.

    sequence_length, batch_size and max_predictions are those of every phase that does not name its
    own; evaluation has the first two, whatever the phases.
    """

    sequence_length: int = 128
    batch_size: int = 256  # A.2; sequences, over all hosts
    format: str = "segment-pair"  # Liu et al. 2019, 4.2, has the four of FORMATS
    # What the second of a pair is. nsp: half are random (3.1, Task #2); sop: half are swapped
    # (Lan et al. 2020, 3.1); none: always the true continuation.
    pairs: str = "nsp"
    max_predictions: int = 20  # K slots a row, as the released code at length 128
    # '' for one phase, or steps:length:batch:K of each, such as "90% 10%:512::77" (A.2): steps as
    # numbers or shares, sizes that are left out as above (data/phases.py).
    phases: str = ""
    mask_rate: float = 0.15  # 3.1, Task #1
    # stochastic: the rate is met exactly on average; nearest: max(1, round(rate · tokens)), special
    # ones counted (released code).
    mask_rounding: str = "stochastic"
    # What is masked together: a token; a word; a span of words (Joshi et al. 2020, 3.1); up to
    # three words (Lan et al. 2020, 4.1).
    mask_units: str = "token"
    mask_token_share: float = 0.8  # of the chosen tokens: replaced by [MASK]
    random_token_share: float = 0.1  # replaced by a random token; the rest is kept
    # 0: drawn anew in every epoch (Liu et al. 2019, 4.1, dynamic); k: k draws in turn (static).
    static_copies: int = 0
    short_probability: float = 0.1  # released code: rows cut to a random shorter length
    # Several documents a row, none of which sees another; of full-sentences and doc-sentences.
    packing: bool = False
    workers: int = 0  # loader processes; 0 reads in threads of this one

    def __post_init__(self):
        if self.sequence_length < 8:
            raise UserError(f"data.sequence_length={self.sequence_length}: must be 8 or more")
        for name in ("batch_size", "max_predictions"):
            if not 1 <= getattr(self, name) <= _MOST:
                raise UserError(f"data.{name}={getattr(self, name)}: must be from 1 to {_MOST}")
        for name in ("workers", "static_copies"):
            if getattr(self, name) < 0:
                raise UserError(f"data.{name}={getattr(self, name)}: must be 0 or more")
        for name, choices in (
            ("format", FORMATS),
            ("pairs", PAIRS),
            ("mask_units", MASK_UNITS),
            ("mask_rounding", MASK_ROUNDINGS),
        ):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"data.{name}={getattr(self, name)!r}: must be one of {', '.join(choices)}"
                )
        for name in ("mask_rate", "mask_token_share", "random_token_share", "short_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"data.{name}={getattr(self, name)}: must be between 0 and 1")
        if self.mask_token_share + self.random_token_share > 1:
            raise UserError(
                f"data.mask_token_share={self.mask_token_share} and data.random_token_share="
                f"{self.random_token_share} add up to more than 1: lower one"
            )
        if self.packing and "pair" in self.format:
            raise UserError(
                f"data.packing=true: rows of data.format={self.format} are one pair each; set "
                f"data.format=doc-sentences or full-sentences, or data.packing=false"
            )
