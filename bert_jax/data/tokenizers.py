"""Text to ids and back: what every tokenizer does, and where one comes from."""

import json
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

from etils import epath

from bert_jax.data import fast_tokenizer, sentencepiece_tokenizer, tokenizer_json
from bert_jax.data.fast_tokenizer import FastTokenizer, train_bpe, train_wordpiece
from bert_jax.data.sentencepiece_tokenizer import SentencePieceTokenizer, train_sentencepiece
from bert_jax.data.vocabulary import SPELLINGS, Vocabulary
from bert_jax.errors import UserError, one_line


@runtime_checkable
class Tokenizer(Protocol):
    """What text says never becomes a special token, the unknown one aside."""

    vocabulary: Vocabulary

    @property
    def vocab_size(self) -> int: ...

    @property
    def sha256(self) -> str:
        """Of the bytes that `save` writes."""

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, without [CLS] and [SEP]."""

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and for each the span of characters of `text` that it stands for."""

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a text in which the mask (or [MASK]) was typed in the place of a piece."""

    def decode(self, ids: list[int]) -> str:
        """Text of the ids; special tokens by their names."""

    def piece(self, token_id: int) -> str:
        """The piece as the vocabulary has it."""

    def parts_of(self, piece: str) -> list[int]:
        """Ids of the pieces here that a piece of another tokenizer of this kind is made of; []
        where there are none for it."""

    def to_json(self) -> str:
        """The content of a Hugging Face tokenizer.json that gives our ids."""

    def save(self, folder: epath.PathLike) -> None:
        """Into a folder that `load_tokenizer` takes."""


TRAINERS: dict[str, Callable[..., Tokenizer]] = {
    "wordpiece": train_wordpiece,
    "sentencepiece": train_sentencepiece,
    "bpe": train_bpe,
}
REST = "..."  # in corpus.special_tokens: the pieces that are learned


def train_tokenizer(
    kind: str, sentences: Iterable[str], vocab_size: int, lowercase: bool, special_tokens: str
) -> Tokenizer:
    """Train one of TRAINERS on the sentences, which are read once and not kept; the same
    sentences make the same bytes. `special_tokens` as in CorpusConfig.

    Raises UserError for special tokens that are not the five, and where the text does not fit
    `vocab_size`.
    """
    return TRAINERS[kind](sentences, vocab_size, lowercase, *_places(special_tokens))


def _places(special_tokens: str) -> tuple[list[str], list[str]]:
    """The names that come first, and those that come last."""
    names = special_tokens.split()
    where = f"corpus.special_tokens={special_tokens!r}"
    allowed = {spelling for spellings in SPELLINGS.values() for spelling in spellings}
    for name in names:
        if name not in allowed | {REST}:
            raise UserError(f"{where}: {name} is none of {' '.join(sorted(allowed))} {REST}")
    for spellings in SPELLINGS.values():
        if sum(name in spellings for name in names) != 1:
            raise UserError(f"{where}: must have one of {' and '.join(spellings)}, once")
    if names.count(REST) > 1:
        raise UserError(f"{where}: {REST} stands for all other pieces; write it once")
    cut = names.index(REST) if REST in names else len(names)
    return names[:cut], names[cut + 1 :]


def load_tokenizer(folder: epath.PathLike) -> Tokenizer:
    """The tokenizer of a folder that `save` wrote, or of a Hugging Face model.

    Raises UserError where there is none, or none that can be read.
    """
    folder = epath.Path(folder)
    for names, read in LAYOUTS.items():
        if not all((folder / name).exists() for name in names):
            continue
        path = folder / names[0]
        try:
            return read(folder)
        except UserError as error:
            raise UserError(f"{path}: no tokenizer can be read here: {error}") from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            # What JSON of another form leads to, too: a list where an object should be.
            reason = f"{type(error).__name__}: {one_line(error, 200)}"
            raise UserError(
                f"{path}: no tokenizer can be read here ({reason}); fetch the file again"
            ) from error
    raise UserError(
        f"{folder}: no tokenizer can be read here (none of {', '.join(n[0] for n in LAYOUTS)}); "
        f"name a folder that bert_jax.prepare wrote, or a Hugging Face model's"
    )


def _read_json(folder: epath.Path) -> Tokenizer:
    return FastTokenizer(json.loads(_text(folder / fast_tokenizer.FILE)))


def _read_own_sentencepiece(folder: epath.Path) -> Tokenizer:
    return SentencePieceTokenizer((folder / sentencepiece_tokenizer.FILE).read_bytes())


def _read_wordpiece(folder: epath.Path) -> Tokenizer:
    """BERT's files, with the defaults that its configuration has in transformers."""
    lines = _text(folder / "vocab.txt").removesuffix("\n").split("\n")
    config = _config(folder)
    return FastTokenizer(
        tokenizer_json.wordpiece(
            {line.rstrip("\r"): number for number, line in enumerate(lines)},
            lowercase=config.get("do_lower_case", True),
            strip_accents=config.get("strip_accents"),
            chinese_characters=config.get("tokenize_chinese_chars", True),
        )
    )


def _read_byte_level(folder: epath.Path) -> Tokenizer:
    """RoBERTa's files."""
    lines = _text(folder / "merges.txt").split("\n")
    return FastTokenizer(
        tokenizer_json.byte_level(
            json.loads(_text(folder / "vocab.json")),
            [line.split(" ") for line in lines if line and not line.startswith("#version")],
            lowercase=False,
            prefix_space=_config(folder).get("add_prefix_space", False),
        )
    )


def _read_spiece(folder: epath.Path) -> Tokenizer:
    """ALBERT's files: its tokenizer changes a text before SentencePiece sees it (released code)."""
    config = _config(folder)
    before: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": quotes}, "content": '"'}
        for quotes in ("``", "''")
    ]
    if not config.get("keep_accents", False):
        before += [{"type": "NFKD"}, {"type": "StripAccents"}]
    if config.get("do_lower_case", True):
        before.append({"type": "Lowercase"})
    proto = sentencepiece_tokenizer.read_proto((folder / "spiece.model").read_bytes())
    return FastTokenizer(tokenizer_json.unigram(proto, before))


def _refuse_sentencepiece(folder: epath.Path) -> Tokenizer:
    raise UserError(
        "this file alone does not say the ids; save tokenizer.json beside it: load it in "
        "transformers with AutoTokenizer.from_pretrained and call save_pretrained"
    )


def _text(path: epath.Path) -> str:
    return path.read_bytes().decode()  # UTF-8, and no end of line changed, wherever this runs


def _config(folder: epath.Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    config = json.loads(_text(path)) if path.exists() else {}
    if not isinstance(config, dict):
        raise UserError(f"{path.name} is no JSON object; fetch it again")
    return config


# The files that a folder of each layout has; the first that fits is taken.
LAYOUTS = {
    (fast_tokenizer.FILE,): _read_json,
    (sentencepiece_tokenizer.FILE,): _read_own_sentencepiece,
    ("vocab.txt",): _read_wordpiece,
    ("vocab.json", "merges.txt"): _read_byte_level,
    ("spiece.model",): _read_spiece,
    ("sentencepiece.bpe.model",): _refuse_sentencepiece,
    ("spm.model",): _refuse_sentencepiece,
}
