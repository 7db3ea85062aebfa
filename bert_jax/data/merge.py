"""Part files to the folder that is read: both splits, their index, what TFDS needs, the counts."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from etils import epath

from bert_jax.data.duplicates import Texts, find_duplicates
from bert_jax.data.parts import Part
from bert_jax.data.records import SplitWriter, describe_to_tfds, shard_sizes

UNIGRAM = "unigram.npy"
SPLITS = ("train", "held_out")


class Parts:
    """The part files of a corpus, and which of their documents are kept."""

    def __init__(self, files: list[Path], dedup: bool):
        self._files = files
        sizes = [len(_load(file, "names")[0]) for file in files]
        self._ends = np.cumsum(sizes)
        found = find_duplicates(self._texts(), sum(sizes), files[0].parent)
        self._kept = ~found.again if dedup else np.ones(sum(sizes), bool)
        self.counts = {
            "duplicate_documents": int(found.again.sum()),
            "held_out_documents_in_training": 0 if dedup else found.in_both_splits,
        }

    def __len__(self) -> int:
        return len(self._files)

    def _texts(self) -> Iterator[Texts]:
        for file in self._files:
            yield Texts(*_load(file, "digests", "names", "held_out"))

    def kept(self, number: int) -> np.ndarray:
        """Of each document of that part."""
        return self._kept[self._ends[number - 1] if number else 0 : self._ends[number]]

    def load(self, number: int) -> Part:
        with np.load(self._files[number], allow_pickle=False) as file:
            return Part(**file)

    def sizes(self) -> dict[str, dict[str, int]]:
        """Documents, rows, sentences, tokens and characters of each split."""
        names = ("documents", "rows", "sentences", "tokens", "characters")
        counts = {split: dict.fromkeys(names, 0) for split in SPLITS}
        last = dict.fromkeys(SPLITS, -1)  # a document may go on in the next part
        for number, file in enumerate(self._files):
            lengths, row_sentences, rows, numbers, held_out, characters = _load(
                file, "sentence_lengths", "row_sentences", "row_documents", "numbers",
                "held_out", "characters",
            )  # fmt: skip
            kept = self.kept(number)
            for split in SPLITS:
                mine = kept & (held_out == (split == "held_out"))
                of_row = mine[rows]
                of_sentence = np.repeat(of_row, row_sentences)
                present = np.unique(numbers[rows[of_row]])
                found = counts[split]
                found["documents"] += len(present) - int(last[split] in present)
                found["rows"] += int(of_row.sum())
                found["sentences"] += int(of_sentence.sum())
                found["tokens"] += int(lengths[of_sentence].sum(dtype=np.int64))
                found["characters"] += int(characters[mine].sum())
                last[split] = int(present[-1]) if len(present) else last[split]
        return counts


def merge(
    parts: Parts,
    sizes: dict[str, dict[str, int]],
    folder: epath.Path,
    dtype: np.dtype,
    vocab_size: int,
    report: Callable[[int, int], None],
) -> dict[str, int]:
    """Write rows, index, token counts and TFDS's files; returns the shards and their sizes, and
    adds to `sizes` how many records each split has.

    `report` hears of tokens that are written, and of all.
    """
    writers = {split: SplitWriter(folder, split, dtype) for split in SPLITS}
    unigram = np.zeros(vocab_size, np.int64)
    total, written = sum(sizes[split]["tokens"] for split in SPLITS), 0
    for number in range(len(parts)):
        part, kept = parts.load(number), parts.kept(number)
        sentence_ends = np.concatenate([[0], np.cumsum(part.row_sentences)])
        token_ends = np.concatenate([[0], np.cumsum(part.sentence_lengths, dtype=np.int64)])
        for split, writer in writers.items():
            of_document = kept & (part.held_out == (split == "held_out"))
            (rows,) = np.nonzero(of_document[part.row_documents])
            begins, ends = token_ends[sentence_ends[rows]], token_ends[sentence_ends[rows + 1]]
            found = [part.tokens[b:e] for b, e in zip(begins, ends, strict=True)]
            of_sentence = np.repeat(of_document[part.row_documents], part.row_sentences)
            writer.add(
                found,
                part.sentence_lengths[of_sentence],
                part.row_sentences[rows],
                part.numbers[part.row_documents[rows]],
            )
            if split == "train" and found:
                unigram += np.bincount(np.concatenate(found), minlength=vocab_size)
            written += int((ends - begins).sum())
        report(written, total)
    for split, writer in writers.items():
        sizes[split]["records"] = writer.close()
    with (folder / UNIGRAM).open("wb") as file:
        np.save(file, unigram, allow_pickle=False)
    records = {split: sizes[split]["records"] for split in SPLITS}
    describe_to_tfds(folder, dtype, records)
    for path in Path(os.fspath(folder)).iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    return shard_sizes(folder, records)


def _load(path: Path, *names: str) -> list[np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return [file[name] for name in names]
