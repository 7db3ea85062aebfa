"""New pieces of a domain behind those of a tokenizer, whose ids keep their meaning.

Training goes on where the tokenizer's own ended (continued BPE, Purason et al. 2025,
arXiv:2512.03989): words are split as it splits them, and what saves most pieces becomes a piece.
So each new piece is one that text gives; of a vocabulary trained anew on the domain, whose new
pieces are appended (Tai et al. 2020, exBERT), many are not.
"""

import heapq
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from bert_jax.data import tokenizer_json
from bert_jax.data.fast_tokenizer import FastTokenizer
from bert_jax.errors import UserError

Run = tuple[str, ...]  # pieces that stand side by side in a word
# The pieces that become one. BPE puts together two at a time; greedy WordPiece needs no piece
# between "my ##oca ##rdial" and "myocardial".
_LONGEST = {"WordPiece": 8, "BPE": 2}
_LEAST = 2  # times that a run stands in the text


def check_extensible(tokenizer: object, where: str) -> None:
    """Raises UserError where pieces cannot be appended without changing what old text gives."""
    kind = tokenizer.kind if isinstance(tokenizer, FastTokenizer) else "Unigram"
    if kind not in _LONGEST:
        raise UserError(
            f"{where}: pieces are appended to WordPiece and byte-level BPE alone, and this is "
            f"SentencePiece, where a new piece would split old words anew; set "
            f"corpus.new_pieces=0"
        )
    assert isinstance(tokenizer, FastTokenizer)
    description = json.loads(tokenizer.to_json())
    if beside := set(tokenizer_json.pieces(description)) - description["model"]["vocab"].keys():
        raise UserError(
            f"{where}: {min(beside)!r} stands beside its pieces, so that none can be appended; set "
            f"corpus.new_pieces=0"
        )


def extend(tokenizer: FastTokenizer, sentences: Iterable[str], count: int) -> FastTokenizer:
    """The tokenizer with `count` more pieces, learned on the sentences, which are read once. A
    text in which none of them is found gives the ids it gave, and so does the same text the same
    pieces.

    Raises UserError where the sentences do not give so many.
    """
    words = Counter(word for sentence in sentences for word in tokenizer.words(" " + sentence))
    unknown = tokenizer.piece(tokenizer.vocabulary.unk)
    split = {word: tokenizer.split(word) for word in sorted(words)}
    split = {
        word: pieces for word, pieces in split.items() if len(pieces) > 1 and unknown not in pieces
    }
    description = json.loads(tokenizer.to_json())
    banned: set[str] = set()
    while True:
        known = description["model"]["vocab"].keys() | banned
        runs = list(itertools.islice(learn(split, words, known, tokenizer.kind), count))
        if len(runs) < count:
            raise UserError(
                f"corpus.new_pieces={count}: this corpus gives {len(runs)} new pieces at the most; "
                f"lower it or bring more text"
            )
        longer = FastTokenizer(tokenizer_json.with_merged(description, runs))
        # WordPiece takes the longest piece that fits. Where the rest of the word is then no piece,
        # as some characters have none of their own, the word would become unknown.
        lost = [word for word in split if unknown in longer.split(word)]
        if not lost:
            return longer
        mark = tokenizer_json.MARKS[tokenizer.kind]
        for piece in [tokenizer_json.joined(run, mark) for run in runs]:
            if any(piece.removeprefix(mark) in word for word in lost):
                banned.add(piece)


def learn(
    split: Mapping[str, Sequence[str]], counts: Mapping[str, int], known: Collection[str],
    kind: str,
) -> Iterator[Run]:  # fmt: skip
    """Runs of pieces that each become one, those that save most pieces first; of
    equals the first in the alphabet. What became one is one in the runs that come after it.

    `split`: the pieces of each word; `counts`: how often it stands in the text. Pieces that are
    `known` are not learned. `kind`: WordPiece or BPE.
    """
    longest, mark = _LONGEST[kind], tokenizer_json.MARKS[kind]
    words = [list(pieces) for pieces in split.values()]
    times = [counts[word] for word in split]
    saved: Counter[Run] = Counter()
    where: defaultdict[Run, set[int]] = defaultdict(set)
    for number, pieces in enumerate(words):
        for run in _runs(pieces, longest):
            saved[run] += times[number] * (len(run) - 1)
            where[run].add(number)
    for run in [run for run, pieces in saved.items() if pieces < _LEAST * (len(run) - 1)]:
        del saved[run], where[run]  # it never becomes more frequent
    heap = [(-pieces, run) for run, pieces in saved.items()]
    heapq.heapify(heap)
    done = set(known)
    while heap:
        negative, run = heapq.heappop(heap)
        piece = tokenizer_json.joined(run, mark)
        if saved.get(run) != -negative or -negative < _LEAST * (len(run) - 1) or piece in done:
            continue  # it was counted anew since, or is no candidate
        done.add(piece)
        changed: set[Run] = set()
        for number in sorted(where[run]):
            for old in _runs(words[number], longest):
                if old in saved:
                    saved[old] -= times[number] * (len(old) - 1)
                    where[old].discard(number)
                    changed.add(old)
            words[number] = _merged(words[number], run, piece)
            for new in _runs(words[number], longest):
                if piece in new or new in saved:
                    saved[new] += times[number] * (len(new) - 1)
                    where[new].add(number)
                    changed.add(new)
        for other in changed:
            if saved[other] > 0:
                heapq.heappush(heap, (-saved[other], other))
            else:
                del saved[other], where[other]
        yield run


def _runs(pieces: Sequence[str], longest: int) -> Iterator[Run]:
    for begin in range(len(pieces) - 1):
        for end in range(begin + 2, min(begin + longest, len(pieces)) + 1):
            yield tuple(pieces[begin:end])


def _merged(pieces: Sequence[str], run: Run, piece: str) -> list[str]:
    """With the run as one piece wherever it stands, from the left."""
    found: list[str] = []
    begin = 0
    while begin < len(pieces):
        here = tuple(pieces[begin : begin + len(run)]) == run
        found.append(piece if here else pieces[begin])
        begin += len(run) if here else 1
    return found
