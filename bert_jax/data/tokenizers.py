"""Text to ids and back. Special tokens have fixed ids and never come out of text."""

import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece
from etils import epath
from sentencepiece import sentencepiece_model_pb2

from bert_jax.errors import UserError
from bert_jax.files import write_whole

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FILE = "tokenizer.model"


class SentencePieceTokenizer:
    """A SentencePiece unigram model (Kudo 2018) under our special tokens.

    `[MASK]` is a control symbol: `encode` gives its characters, whatever a corpus says;
    `encode_prompt` alone gives the id, to those who type it.
    """

    def __init__(self, model: bytes):
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        # The text after a typed [MASK] goes on inside a word unless a space comes first.
        continuing = sentencepiece_model_pb2.ModelProto.FromString(model)  # type: ignore[attr-defined]
        continuing.normalizer_spec.add_dummy_prefix = False
        self._continuing = sentencepiece.SentencePieceProcessor(
            model_proto=continuing.SerializeToString()
        )
        found = tuple(self._processor.id_to_piece(i) for i in range(min(5, self.vocab_size)))
        if found != SPECIAL:
            raise UserError(
                f"tokenizer: its first pieces are {' '.join(found)}, not {' '.join(SPECIAL)}; "
                f"train it with python -m bert_jax.prepare"
            )

    @property
    def vocab_size(self) -> int:
        return self._processor.get_piece_size()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.model).hexdigest()

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, with no special token but [UNK]."""
        return self._processor.encode(texts, out_type=int)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and for each the span of characters of `text` that it stands for."""
        encoded = self._processor.encode(text, return_type="offset_mapping")
        return encoded["ids"], encoded["offsets"]

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a text in which `[MASK]` was typed in the place of a piece.

        The same ids as encoding the unmasked text and putting MASK over that piece.
        """
        first, *rest = text.split(SPECIAL[MASK])
        ids = self.encode([first])[0]
        for part in rest:
            processor = self._processor if part[:1].isspace() else self._continuing
            ids += [MASK, *processor.encode(part, out_type=int)]
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text of the ids; special tokens by their names."""
        out, run = [], []
        for i in [*ids, PAD]:
            if i >= len(SPECIAL):
                run.append(i)
                continue
            if run:
                out.append(self._processor.decode(run))
                run = []
            out.append(SPECIAL[i])
        return " ".join(out[:-1])

    def piece(self, token_id: int) -> str:
        """The piece as SentencePiece writes it: ▁ stands for the space before a word."""
        return self._processor.id_to_piece(token_id)

    def save(self, folder: epath.PathLike) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / FILE, self.model)


def load_tokenizer(folder: epath.PathLike) -> SentencePieceTokenizer:
    """Raises UserError where there is none, or none that can be read."""
    path = epath.Path(folder) / FILE
    try:
        return SentencePieceTokenizer(path.read_bytes())
    except UserError:
        raise
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path}: no tokenizer can be read here ({type(error).__name__}); prepare the "
            f"corpus again, or name another folder"
        ) from error


def train_tokenizer(
    sentences: Iterable[str], vocab_size: int, lowercase: bool
) -> SentencePieceTokenizer:
    """Train on the sentences, in their order.

    Raises UserError where the text is too small for `vocab_size` pieces.
    """
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
            vocab_size=vocab_size,
            model_type="unigram",
            normalization_rule_name="nmt_nfkc_cf" if lowercase else "nmt_nfkc",
            pad_id=PAD, unk_id=UNK, bos_id=CLS, eos_id=SEP,
            pad_piece=SPECIAL[PAD], unk_piece=SPECIAL[UNK],
            bos_piece=SPECIAL[CLS], eos_piece=SPECIAL[SEP], control_symbols=SPECIAL[MASK],
            character_coverage=0.9995,
            # Sums are grouped by thread: a number of our own makes the model everywhere the same.
            num_threads=4,
            minloglevel=2,
        )  # fmt: skip
    except BaseException as error:
        if failed:
            raise failed[0] from None
        if not isinstance(error, RuntimeError | ValueError):
            raise
        most = re.search(r"value <= (\d+)", str(error))
        least = re.search(r"required_chars\. \d+ vs (\d+)", str(error))
        reason = "the trainer says: " + " ".join(str(error).split())[:200]
        if most:
            reason = f"this corpus gives {most[1]} pieces at the most; lower it or bring more text"
        elif least:
            reason = f"the characters of this corpus alone are {least[1]} pieces; raise it"
        raise UserError(f"model.vocab_size={vocab_size}: {reason}") from error
    if failed:
        raise failed[0]
    return SentencePieceTokenizer(model.getvalue())


def _bounded(sentences: Iterable[str]) -> Iterator[str]:
    """Sentences short enough for the trainer, which would leave out one of over 4,192 bytes."""
    for sentence in sentences:
        for start in range(0, len(sentence), 1000):
            yield sentence[start : start + 1000]
