"""WordPiece, byte-level BPE and what else a tokenizer.json says, through the package tokenizers."""

import functools
import hashlib
import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator

import tokenizers
from etils import epath
from tokenizers import models, normalizers, pre_tokenizers, trainers

from bert_jax.data import tokenizer_json
from bert_jax.data.tokenizer_json import Description
from bert_jax.data.words import build_vocabulary
from bert_jax.errors import UserError
from bert_jax.files import write_whole
from bert_jax.store import as_folder

FILE = "tokenizer.json"

# Unless this is said, the package (before 0.23) warns when a process forks after it used threads.
# They do not come along to a forked child, which would wait for them for ever: it does without.
if "TOKENIZERS_PARALLELISM" not in os.environ:
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    os.register_at_fork(after_in_child=lambda: os.environ.update(TOKENIZERS_PARALLELISM="false"))


class FastTokenizer:
    """What a tokenizer.json describes.

    `encode` and `encode_with_offsets` know no special token: what a text says is text.
    `encode_prompt` alone gives the mask, to those who type it.
    """

    def __init__(self, description: Description):
        """Raises UserError for a description that is not of the three kinds, or is broken."""
        description = tokenizer_json.complete(description)
        self._content = json.dumps(description, ensure_ascii=False)
        self._pieces = tokenizer_json.pieces(description)
        kind = self.kind = description["model"]["type"]  # WordPiece, BPE or Unigram
        special = {token["id"] for token in description["added_tokens"]}
        self.vocabulary = build_vocabulary(self._pieces, kind, special)
        # The space before a mask is a part of the hidden piece, where pieces have spaces.
        self._space_is_hidden = kind == "BPE"
        plain = tokenizer_json.hide_special(description)
        self._tokenizer = _without_special(plain)
        self._continuing = _without_special(
            plain if kind == "WordPiece" else tokenizer_json.without_prefix(plain)
        )

    @property
    def vocab_size(self) -> int:
        return len(self._pieces)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self._content.encode()).hexdigest()

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, with no special token but the unknown one."""
        return [e.ids for e in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and for each the span of characters of `text` that it stands for."""
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return encoded.ids, encoded.offsets

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a text in which the mask was typed in the place of a piece.

        In byte-level BPE and Unigram the text after a mask goes on inside a word unless a space
        comes first; in WordPiece it begins one, as BERT's tokenizer has it.
        """
        parts = self.vocabulary.split_prompt(text)
        ids = []
        for number, part in enumerate(parts):
            if number:
                ids.append(self.vocabulary.mask)
            if self._space_is_hidden and number < len(parts) - 1:
                part = part.rstrip()
            begins = number == 0 or part[:1].isspace()
            tokenizer = self._tokenizer if begins else self._continuing
            ids += tokenizer.encode(part, add_special_tokens=False).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text of the ids; special tokens by their names."""
        return self.vocabulary.spell(
            ids, lambda run: self._tokenizer.decode(run, skip_special_tokens=False).strip()
        )

    def piece(self, token_id: int) -> str:
        """The piece as the vocabulary has it: with ##, or with Ġ or ▁ for a space."""
        return self._pieces[token_id]

    def words(self, text: str) -> list[str]:
        """What is split into pieces by itself, as the pieces write it."""
        normalizer, cut = self._tokenizer.normalizer, self._tokenizer.pre_tokenizer
        text = normalizer.normalize_str(text) if normalizer else text
        return [word for word, _ in cut.pre_tokenize_str(text)] if cut else [text]

    def split(self, word: str) -> list[str]:
        """The pieces of one of `words`."""
        return [token.value for token in self._tokenizer.model.tokenize(word)]

    def parts_of(self, piece: str) -> list[int]:
        """Ids of the pieces here that another tokenizer's piece is made of; [] where there are
        none for it."""
        if self.kind == "Unigram":
            return self.encode([piece.replace("▁", " ")])[0]
        if self.kind == "BPE":
            return [token.id for token in self._tokenizer.model.tokenize(piece)]
        # Greedily as for a word, but it may begin inside one.
        body, mark = piece.removeprefix("##"), "##" if piece.startswith("##") else ""
        ids, found, begin = self._ids, list[int](), 0
        while begin < len(body):
            ends = range(len(body), begin, -1)
            end = next((end for end in ends if mark + body[begin:end] in ids), None)
            if end is None:
                return []
            found.append(ids[mark + body[begin:end]])
            mark, begin = "##", end
        return found

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {piece: number for number, piece in enumerate(self._pieces)}

    def to_json(self) -> str:
        """The content of a tokenizer.json."""
        return self._content

    def save(self, folder: epath.PathLike) -> None:
        folder = as_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / FILE, self._content)


def _without_special(description: Description) -> tokenizers.Tokenizer:
    tokenizer = tokenizer_json.build(description)
    tokenizer.encode_special_tokens = True  # as text, that means
    return tokenizer


def train_wordpiece(
    sentences: Iterable[str], vocab_size: int, lowercase: bool, head: list[str], tail: list[str]
) -> FastTokenizer:
    """Train on the sentences, which are read once. Names of special tokens come first (`head`)
    and last (`tail`).

    Raises UserError where `vocab_size` is too much for the text, or too little.
    """
    # The trainer numbers the pieces "##x" of one character as it meets them in a hash table,
    # whose order is another in every process, and breaks ties by these numbers. So it is given
    # all there could be, in order, as if they were special, and room for them.
    inner = _inner(lowercase)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size + len(inner), show_progress=False, special_tokens=inner
    )
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token=""))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(_assigned(sentences), trainer)
    learned = _in_order(tokenizer)[len(inner) :]
    characters = [piece for piece in learned if len(piece) == 1]
    merged = learned[len(characters) :]
    known = set(inner)
    characters += [f"##{c}" for c in characters if f"##{c}" in known]
    ids = _lay_out(characters, merged, vocab_size, head, tail)
    return FastTokenizer(tokenizer_json.wordpiece(ids, lowercase))


@functools.cache
def _inner(lowercase: bool) -> list[str]:
    """Every character that can stand inside a word, as a piece."""
    characters = [
        chr(number)
        for number in range(sys.maxunicode + 1)
        if unicodedata.category(chr(number)) not in ("Cn", "Co", "Cs")
    ]
    text = " ".join("a" + character for character in characters)
    text = normalizers.BertNormalizer(lowercase=lowercase).normalize_str(text)
    words = pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)
    return sorted({f"##{character}" for word, _ in words for character in word[1:]})


def _assigned(sentences: Iterable[str]) -> Iterator[str]:
    """Without the characters that Unicode, as this Python has it, leaves open: no list of
    characters could hold them."""
    for sentence in sentences:
        if not sentence.isascii():
            sentence = "".join(c if unicodedata.category(c) != "Cn" else " " for c in sentence)
        yield sentence


def train_bpe(
    sentences: Iterable[str], vocab_size: int, lowercase: bool, head: list[str], tail: list[str]
) -> FastTokenizer:
    """As `train_wordpiece`. All 256 bytes are pieces, so no text has an unknown one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocab_size - len(head) - len(tail), 0),
        show_progress=False,
        initial_alphabet=alphabet,
    )
    tokenizer = tokenizers.Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.train_from_iterator(iter(sentences), trainer)
    merged = _in_order(tokenizer)[len(alphabet) :]
    ids = _lay_out(alphabet, merged, vocab_size, head, tail)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return FastTokenizer(
        tokenizer_json.byte_level(ids, merges, lowercase=lowercase, prefix_space=True)
    )


def _in_order(tokenizer: tokenizers.Tokenizer) -> list[str]:
    vocab = tokenizer.get_vocab()
    return sorted(vocab, key=vocab.__getitem__)


def _lay_out(
    characters: list[str],
    merged: list[str],
    vocab_size: int,
    head: list[str],
    tail: list[str],
) -> dict[str, int]:
    """Ids from 0 to `vocab_size`: all characters, and as many of the merged pieces as it takes."""
    least = len(head) + len(characters) + len(tail)
    if vocab_size < least:
        raise UserError(
            f"model.vocab_size={vocab_size}: the characters of this corpus alone, with the special "
            f"tokens, are {least} pieces; raise it"
        )
    if vocab_size > least + len(merged):
        raise UserError(
            f"model.vocab_size={vocab_size}: this corpus gives {least + len(merged)} pieces at the "
            f"most; lower it or bring more text"
        )
    names = [*head, *characters, *merged[: vocab_size - least], *tail]
    return {name: number for number, name in enumerate(names)}
