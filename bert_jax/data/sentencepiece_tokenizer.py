"""SentencePiece unigram models (Kudo 2018): trained here, read and written as they are."""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import sentencepiece
from etils import epath
from sentencepiece import sentencepiece_model_pb2

from bert_jax.data import tokenizer_json
from bert_jax.data.vocabulary import SPELLINGS, special_ids
from bert_jax.data.words import build_vocabulary
from bert_jax.errors import UserError, one_line
from bert_jax.files import write_whole
from bert_jax.store import as_folder

FILE = "tokenizer.model"


def read_proto(model: bytes) -> sentencepiece_model_pb2.ModelProto:  # type: ignore[name-defined]
    """Raises UserError for what is no unigram model."""
    try:
        proto = sentencepiece_model_pb2.ModelProto.FromString(model)  # type: ignore[attr-defined]
    except Exception as error:  # protobuf's own kind, which it does not promise to keep
        raise UserError(f"not a SentencePiece model ({one_line(error, 100)})") from error
    if not proto.pieces or proto.trainer_spec.model_type != proto.trainer_spec.UNIGRAM:
        raise UserError("not a SentencePiece unigram model")
    return proto


class SentencePieceTokenizer:
    """A SentencePiece unigram model under our special tokens.

    They are control symbols: `encode` gives their characters, whatever a corpus says;
    `encode_prompt` alone gives the mask, to those who type it. A model that has no mask among
    its pieces gets one after them, as XLM-R does (Conneau et al. 2020, released code).
    """

    def __init__(self, model: bytes):
        """Raises UserError for what is no unigram model, or lacks another special token."""
        self.model = model
        proto = read_proto(model)
        self._pieces = [piece.piece for piece in proto.pieces]
        if not any(spelling in self._pieces for spelling in SPELLINGS["mask"]):
            self._pieces.append("[MASK]" if "[CLS]" in self._pieces else "<mask>")
        self.vocabulary = build_vocabulary(self._pieces, "Unigram")
        for number in (self.vocabulary.cls, self.vocabulary.sep, self.vocabulary.pad):
            proto.pieces[number].type = proto.pieces[number].CONTROL
        if self.vocabulary.mask < len(proto.pieces):
            proto.pieces[self.vocabulary.mask].type = proto.pieces[0].CONTROL
        self._proto = proto
        self._processor = _processor(proto)
        # The text after a typed mask goes on inside a word unless a space comes first.
        continuing = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
        continuing.CopyFrom(proto)
        continuing.normalizer_spec.add_dummy_prefix = False
        self._continuing = _processor(continuing)

    @property
    def vocab_size(self) -> int:
        return len(self._pieces)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.model).hexdigest()

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, with no special token but the unknown one."""
        return self._processor.encode(texts, out_type=int, num_threads=1)  # a worker is a core

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and for each the span of characters of `text` that it stands for."""
        encoded = self._processor.encode(text, return_type="offset_mapping")
        return encoded["ids"], encoded["offsets"]

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a text in which the mask was typed in the place of a piece.

        The same ids as encoding the unmasked text and putting the mask over that piece.
        """
        first, *rest = self.vocabulary.split_prompt(text)
        ids = self.encode([first])[0]
        for part in rest:
            processor = self._processor if part[:1].isspace() else self._continuing
            ids += [self.vocabulary.mask, *processor.encode(part, out_type=int)]
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text of the ids; special tokens by their names."""
        return self.vocabulary.spell(ids, self._processor.decode)

    def piece(self, token_id: int) -> str:
        """The piece as SentencePiece writes it: ▁ stands for the space before a word."""
        return self._pieces[token_id]

    def parts_of(self, piece: str) -> list[int]:
        """Ids of the pieces here that another tokenizer's piece is made of."""
        processor = self._processor if piece.startswith("▁") else self._continuing
        return processor.encode(piece.lstrip("▁"), out_type=int)

    def to_json(self) -> str:
        """The content of a tokenizer.json that gives the same ids (tokenizer_json.unigram says
        where it cannot)."""
        description = tokenizer_json.unigram(self._proto)
        vocabulary = self.vocabulary
        if vocabulary.mask == len(self._proto.pieces):
            description["model"]["vocab"].append([vocabulary.mask_token, 0.0])
        return json.dumps(tokenizer_json.complete(description), ensure_ascii=False)

    def save(self, folder: epath.PathLike) -> None:
        folder = as_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / FILE, self.model)


def _processor(proto) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())


def train_sentencepiece(
    sentences: Iterable[str], vocab_size: int, lowercase: bool, head: list[str], tail: list[str]
) -> SentencePieceTokenizer:
    """Train on the sentences, in their order. Names of special tokens come first (`head`) and
    last (`tail`).

    Raises UserError where `vocab_size` is too much for the text, or too little.
    """
    ids = {name: number for number, name in enumerate(head)}
    ids |= {name: vocab_size - len(tail) + number for number, name in enumerate(tail)}
    special = special_ids(ids)
    mask, number = special["mask"]
    # A control symbol gets the first id that is free: in the head, that is the mask's own.
    appended = number == vocab_size - 1
    if mask in tail and not appended:
        raise UserError(
            f"corpus.special_tokens: sentencepiece has its mask among the first tokens or last of "
            f"all; put {mask} there, or set corpus.tokenizer to another kind"
        )
    options: dict[str, Any] = {} if appended else {"control_symbols": mask}
    for role, ours in (("pad", "pad"), ("unk", "unk"), ("bos", "cls"), ("eos", "sep")):
        options[f"{role}_piece"], options[f"{role}_id"] = special[ours]
    model = io.BytesIO()
    failed: list[BaseException] = []

    def guarded() -> Iterator[str]:
        try:
            yield from _bounded(sentences)
        except BaseException as error:  # the trainer, not being Python, may lose what it was
            failed.append(error)
            raise

    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=guarded(),
            model_writer=model,
            vocab_size=vocab_size - appended,
            model_type="unigram",
            normalization_rule_name="nmt_nfkc_cf" if lowercase else "nmt_nfkc",
            **options,
            character_coverage=0.9995,
            # Sums are grouped by thread: a number of our own makes the model everywhere the same.
            num_threads=4,
            minloglevel=2,
        )
    except BaseException as error:
        if failed:
            raise failed[0] from None
        if not isinstance(error, RuntimeError | ValueError):
            raise
        reason = _why(error, appended)
        raise UserError(f"model.vocab_size={vocab_size}: {reason}") from error
    if failed:
        raise failed[0]
    return SentencePieceTokenizer(model.getvalue())


def _why(error: BaseException, appended: int) -> str:
    """What a size of the vocabulary has against it, by the trainer's words."""
    if most := re.search(r"value <= (\d+)", str(error)):
        return (
            f"this corpus gives {int(most[1]) + appended} pieces at the most; lower it or bring "
            f"more text"
        )
    if least := re.search(r"required_chars\. \d+ vs (\d+)", str(error)):
        return f"the characters of this corpus alone are {least[1]} pieces; raise it"
    return "the trainer says: " + one_line(error, 200)


def _bounded(sentences: Iterable[str]) -> Iterator[str]:
    """Sentences short enough for the trainer, which would leave out one of over 4,192 bytes."""
    for sentence in sentences:
        for start in range(0, len(sentence), 1000):
            yield sentence[start : start + 1000]
