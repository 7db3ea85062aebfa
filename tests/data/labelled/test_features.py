"""Records to examples: rows as the models know them, nothing labelled twice or lost in silence."""

import functools
import json

import numpy as np
import pytest

from bert_jax.data.fast_tokenizer import FastTokenizer
from bert_jax.data.labelled.characters import encode_spans, encode_words
from bert_jax.data.labelled.features import RowFormat, choice_examples, text_examples
from bert_jax.data.labelled.labels import LabelSet
from bert_jax.data.labelled.question_features import best_answers, question_examples
from bert_jax.data.labelled.records import (
    AnswerSpan,
    ChoiceRecord,
    QuestionRecord,
    TagRecord,
    TextRecord,
)
from bert_jax.data.labelled.tag_features import cut_windows, tag_examples
from bert_jax.errors import UserError
from tests import tiny
from tests.data.test_tokenizers import ODD, ROBERTA, train

KINDS = ["wordpiece", "sentencepiece", "bpe", "bpe as released", "unigram"]
BINARY = LabelSet.given(["no", "yes"])


@functools.cache
def tokenizer_of(kind):
    """Unigram: SentencePiece's model as a tokenizer.json, as ALBERT and XLM-R come. As RoBERTa was
    released, a first word has no space before it, and so other tokens than inside a sentence."""
    if kind == "bpe as released":
        content = train("bpe", ROBERTA).to_json()
        return FastTokenizer(
            json.loads(content.replace('"add_prefix_space": true', '"add_prefix_space": false'))
        )
    if kind == "unigram":
        return FastTokenizer(json.loads(train("sentencepiece").to_json()))
    return train(kind, ROBERTA) if kind == "bpe" else train(kind)


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return tokenizer_of(request.param)


def rows_of(examples):
    return [examples.input_ids[examples.row(n)].tolist() for n in range(len(examples.seconds))]


def texts(number, pair, seed=0):
    sentences = tiny.sentences(2 * number, seed)
    return [
        TextRecord(tuple(sentences[2 * n : 2 * n + 1 + pair]), "no" if n % 3 else "yes", f"f:{n}")
        for n in range(number)
    ]


@pytest.mark.parametrize("form", [RowFormat(64), RowFormat(64, types=1, separators=2)])
def test_rows_of_texts_and_pairs(tokenizer, form):
    words = tokenizer.vocabulary
    for pair in (False, True):
        records = texts(20, pair)
        examples = text_examples(iter(records), tokenizer, form, BINARY)
        for number, (record, row) in enumerate(zip(records, rows_of(examples), strict=True)):
            a, *b = tokenizer.encode(list(record.texts))
            head = [words.cls, *a, words.sep]
            between = [words.sep] * (form.separators - 1)
            assert row == (head + between + b[0] + [words.sep] if b else head)
            second = len(head + between) if b and form.types == 2 else len(row)
            assert examples.seconds[number] - examples.begins[number] == second
        assert examples.labels.tolist() == [BINARY[record.label] for record in records]
        assert examples.weights.tolist() == [1] * 20 and examples.cut == 0
        assert examples.owners.tolist() == list(range(20)) and examples.pad == words.pad


def test_the_longer_side_is_cut_first_and_counted(tokenizer):
    short, long = "the", " ".join(tiny.sentences(8))
    room = 16 - 3
    a, b = tokenizer.encode([short, long])
    assert len(a) < room // 2 < len(b)
    records = [TextRecord(pair, 0.0, "f:1") for pair in ((short, long), (long, long), (short,) * 2)]
    examples = text_examples(records, tokenizer, RowFormat(16), None)
    rows, words = rows_of(examples), tokenizer.vocabulary
    assert rows[0] == [words.cls, *a, words.sep, *b[: room - len(a)], words.sep]
    assert rows[1] == [words.cls, *b[:7], words.sep, *b[:6], words.sep]
    assert examples.cut == 2 and examples.lengths.tolist()[:2] == [16, 16]
    single = text_examples([TextRecord((long,), 0.0, "f:1")], tokenizer, RowFormat(16), None)
    assert rows_of(single) == [[words.cls, *b[:14], words.sep]] and single.cut == 1


def test_numbers_and_labels_that_are_not_there(tokenizer):
    records = [TextRecord(("a",), score, "f:1") for score in (0.5, 3.0)]
    examples = text_examples(records, tokenizer, RowFormat(8), None)
    assert examples.labels.dtype == np.float32 and examples.labels.tolist() == [0.5, 3.0]
    with pytest.raises(UserError, match="f:2: 'maybe' is no label of this task; there are no, yes"):
        text_examples([TextRecord(("a",), "maybe", "f:2")], tokenizer, RowFormat(8), BINARY)
    with pytest.raises(UserError, match="max_length=4: must be 8 or more"):
        RowFormat(4)


def test_choices(tokenizer):
    sentences = tiny.sentences(8)
    records = [
        ChoiceRecord(sentences[n], tuple(sentences[n + 1 : n + 4]), n, "f:1") for n in (0, 2)
    ]
    examples = choice_examples(records, tokenizer, RowFormat(64))
    pairs = [TextRecord((r.context, choice), 0.0, "f:1") for r in records for choice in r.choices]
    assert rows_of(examples) == rows_of(text_examples(pairs, tokenizer, RowFormat(64), None))
    assert (examples.choices, len(examples), examples.labels.tolist()) == (3, 2, [0, 2])
    longest = [max(map(len, rows_of(examples)[n : n + 3])) for n in (0, 3)]
    assert examples.lengths.tolist() == longest
    assert choice_examples(records, tokenizer, RowFormat(12)).cut == 2


def test_spans_hold_the_text_of_their_tokens(tokenizer):
    for text in [*tiny.sentences(30), *ODD]:
        ids, spans = encode_spans(tokenizer, text)
        assert [ids] == tokenizer.encode([text])
        for begin, end in spans:
            assert 0 <= begin <= end <= len(text)
            assert text[begin:end] == text[begin:end].strip()
    sentence = "Every table"
    _, spans = encode_spans(tokenizer, sentence)
    covered = {place for begin, end in spans for place in range(begin, end)}
    assert covered == {place for place, character in enumerate(sentence) if character != " "}


def test_words_have_their_tokens(tokenizer):
    """Those of the whole sentence, each once; what the tokenizer drops is one unknown token."""
    for sentence in tiny.sentences(30):
        words = tuple(sentence.split(" "))
        pieces = encode_words(tokenizer, words)
        assert [[i for ids in pieces for i in ids]] == tokenizer.encode([sentence])
        spelled = [tokenizer.decode(ids).replace(" ", "").lower() for ids in pieces]
        assert spelled == [word.lower() for word in words]
    dropped = encode_words(tokenizer_of("wordpiece"), ("the", "\x7f", "table"))
    assert dropped[1] == [tokenizer_of("wordpiece").vocabulary.unk]
    for odd in ODD:
        if words := tuple(odd.split(" ")):
            assert all(encode_words(tokenizer, words))


def test_windows_label_each_word_once():
    rng = np.random.default_rng(0)
    for _ in range(500):
        room, overlap = int(rng.integers(1, 20)), int(rng.integers(0, 25))
        sizes = rng.integers(1, room + 1, rng.integers(1, 40))
        windows = list(cut_windows(sizes, room, overlap))
        labelled = [word for w in windows for word in range(w.first, w.last)]
        assert labelled == list(range(len(sizes)))
        for window in windows:
            assert window.begin <= window.first <= window.last <= window.end
            assert sizes[window.begin : window.end].sum() <= room
        for one, two in zip(windows, windows[1:], strict=False):
            assert one.begin < two.begin <= one.end < two.end
            assert sizes[two.begin : one.end].sum() <= min(overlap, room // 2)


@pytest.mark.parametrize("length", [8, 16, 64])
def test_every_word_is_labelled_once_over_windows(tokenizer, length):
    sentences = [" ".join(tiny.sentences(n, seed=n)).split(" ") for n in (1, 3, 6)]
    kinds = ["O", "B-X", "I-X"]
    records = [
        TagRecord(tuple(words), tuple(kinds[n % 3] for n in range(len(words))), "f", 1)
        for words in sentences
    ]
    labels = LabelSet.given(kinds)
    examples = tag_examples(iter(records), tokenizer, RowFormat(length), labels)
    assert examples.lengths.max() <= length and len(examples) >= 3
    assert examples.weights.sum() == sum(map(len, sentences))
    by_example = [examples.row(n) for n in range(len(examples))]
    found = examples.by_word([examples.labels[row] for row in by_example])
    assert [[kinds[n] for n in labels] for labels in found] == [list(r.tags) for r in records]
    numbers = examples.by_word([examples.words[row] for row in by_example])
    assert [n.tolist() for n in numbers] == [list(range(len(words))) for words in sentences]
    first = examples.by_word([examples.input_ids[row] for row in by_example])
    for record, ids in zip(records, first, strict=True):
        assert ids.tolist() == [piece[0] for piece in encode_words(tokenizer, record.words)]
    longest = max(len(piece) for r in records for piece in encode_words(tokenizer, r.words))
    assert (examples.cut > 0) == (longest > length - 2)


def test_tags_without_labels_and_wrong_ones(tokenizer):
    labels = LabelSet.given(["O", "B-X"])
    plain = [TagRecord(("the", "table"), None, "f", 3)]
    examples = tag_examples(plain, tokenizer, RowFormat(16), labels)
    assert not examples.weights.any() and sorted(examples.words)[-2:] == [0, 1]
    wrong = [TagRecord(("the", "table"), ("O", "B-Y"), "f", 3)]
    with pytest.raises(UserError, match="f:4: 'B-Y' is no label of this task"):
        tag_examples(wrong, tokenizer, RowFormat(16), labels)


def questions(number, seed=0):
    """Every third has no answer; the others any run of words, or of characters within a word."""
    rng, out = np.random.default_rng(seed), []
    for n in range(number):
        context = " \t".join(tiny.sentences(int(rng.integers(1, 9)), seed=n))
        question = tiny.sentences(1, seed=100 + n)[0]
        begin = int(rng.integers(0, len(context) - 12))
        text = context[begin : begin + int(rng.integers(1, 12))].strip()
        answers = () if n % 3 == 0 or not text else (AnswerSpan(text, context.index(text)),)
        out.append(QuestionRecord(f"q{n}", question, context, answers, f"f: question q{n}"))
    return out


def perfect(examples):
    """Logits that know the labels."""
    starts, ends = [], []
    for number in range(len(examples)):
        here = examples.row(number)
        for logits, place in zip((starts, ends), examples.labels[number], strict=True):
            logits.append(np.zeros(90, np.float32))  # padded, as in a batch
            logits[-1][place] = 10.0
            logits[-1][here.stop - here.start :] = 99.0
    return starts, ends


@pytest.mark.parametrize("form", [RowFormat(80), RowFormat(64, types=1, separators=2)])
def test_every_answer_is_found_back(tokenizer, form):
    records = questions(60)
    examples = question_examples(iter(records), tokenizer, form, stride=8, max_question=16)
    assert examples.lengths.max() <= form.max_length and examples.lost == 0
    found = best_answers(examples, *perfect(examples), max_answer_length=64)
    assert [answers.id for answers in found] == [record.id for record in records]
    windows = np.bincount(examples.owners)
    assert windows.max() > 3
    for number, (record, answers) in enumerate(zip(records, found, strict=True)):
        labels = examples.labels[examples.owners == number]
        if not record.answers:
            assert not labels.any() and answers.null_difference > 0
            continue
        assert labels.any()
        best, (gold,) = answers.best[0], record.answers
        assert best.text == record.context[best.start : best.end] and gold.text in best.text
        assert best.score == 20


def test_windows_of_questions(tokenizer):
    """Each token of the context is in a window, and central in exactly one."""
    records = questions(12)
    examples = question_examples(records, tokenizer, RowFormat(48), stride=8, max_question=16)
    words = tokenizer.vocabulary
    for owner, record in enumerate(records):
        ids, spans = encode_spans(tokenizer, record.context)
        question = tokenizer.encode([record.question])[0][:16]
        numbers = np.flatnonzero(examples.owners == owner)
        central = []
        for step, number in enumerate(numbers):
            here = examples.row(number)
            part = ids[8 * step : 8 * step + 48 - 3 - len(question)]
            row = [words.cls, *question, words.sep, *part, words.sep]
            assert examples.input_ids[here].tolist() == row
            second = examples.seconds[number] - here.start
            assert second == len(question) + 2
            inside = examples.spans[here][:, 0] >= 0
            assert inside.tolist() == [second <= n < len(row) - 1 for n in range(len(row))]
            assert (examples.spans[here][inside] == spans[8 * step :][: len(part)]).all()
            assert not (examples.central[here] & ~inside).any()
            central += (np.flatnonzero(examples.central[here]) - second + 8 * step).tolist()
        assert sorted(central) == list(range(len(ids)))
    long = sum(len(tokenizer.encode([record.question])[0]) > 16 for record in records)
    assert examples.cut == long


def test_best_answers_by_hand():
    """Length, order, [CLS] of the window that is surest of an answer, and each text once."""
    tokenizer = tokenizer_of("wordpiece")
    context = "the table on the table"
    record = QuestionRecord("q", "a", context, None, "f: question q")
    examples = question_examples([record], tokenizer, RowFormat(32), max_question=4)
    assert not examples.weights.any() and len(examples) == 1
    ids, spans = encode_spans(tokenizer, context)
    second = int(examples.seconds[0])
    firsts = [second + int(np.flatnonzero(spans[:, 0] == n)[0]) for n in (0, 4, 10, 13, 17)]
    start, end = np.full(len(examples.input_ids), -50.0), np.full(len(examples.input_ids), -50.0)
    lasts = [n - 1 for n in firsts[1:]] + [second + len(ids) - 1]
    start[firsts] = [1, 5, 0, 0, 4]
    end[lasts] = [0, 3, 2, 0, 3]
    start[0], end[0] = 2, 1
    (found,) = best_answers(examples, [start], [end], n_best=5, max_answer_length=30)
    assert found.best[0][:3] == ("table", 4, 9) and found.best[0].score == 8
    assert found.best[1][:3] == ("table on the table", 4, 22) and found.best[1].score == 8
    spans = [(4, 12), (4, 16)]  # "table on" 7, as the other "table", which comes no second time
    assert [answer[1:3] for answer in found.best[2:4]] == spans
    assert [answer.score for answer in found.best[2:4]] == [7, 5]
    assert found.null_difference == 3 - 8
    (short,) = best_answers(examples, [start], [end], max_answer_length=1)
    assert all(len(tokenizer.encode([answer.text])[0]) == 1 for answer in short.best)


def test_the_least_null_of_all_windows_counts():
    tokenizer = tokenizer_of("wordpiece")
    context = " ".join(tiny.sentences(6))
    record = QuestionRecord("q", "a", context, (), "f: question q")
    examples = question_examples([record], tokenizer, RowFormat(32), stride=16, max_question=4)
    assert len(examples) > 2
    rng = np.random.default_rng(0)
    starts, ends = rng.normal(size=(2, len(examples), 32))
    (found,) = best_answers(examples, list(starts), list(ends))
    assert found.null_difference == min(starts[:, 0] + ends[:, 0]) - found.best[0].score


def test_an_answer_without_tokens_and_a_row_without_room():
    tokenizer = tokenizer_of("wordpiece")
    record = QuestionRecord("q", "a", "the \x7f table", (AnswerSpan("\x7f", 4),), "f")
    examples = question_examples([record], tokenizer, RowFormat(32), max_question=4)
    assert examples.lost == 1 and examples.weights.tolist() == [0]
    with pytest.raises(UserError, match="raise max_length or lower max_question"):
        question_examples([record], tokenizer, RowFormat(32), max_question=29)
    empty = QuestionRecord("q", "a", "", (), "f")
    examples = question_examples([empty], tokenizer, RowFormat(32), max_question=4)
    (found,) = best_answers(examples, [np.zeros(32)], [np.zeros(32)])
    assert found.best == () and found.null_difference == np.inf
