"""SQuAD's scores: worked by hand, and stated once more in another way."""

import re
import string

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.scores import answers
from bert_jax.tasks.scores.answers import squad_1, squad_2

WORDS = (
    "the a An THE answer Denver Broncos broncos 1,000 U.S.A. a. theatre don't — the-end A's 'a' "
    "_a naïve ÉCOLE École «the» ’the’ 日本 the日本 x\u00a0y \t . !? $5 5"
).split(" ")


def texts(random):
    return " ".join(random.choice(WORDS, random.integers(0, 5)))


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("The Denver Broncos!", "denver broncos"),
        ("a  an\tthe\n", ""),
        ("U.S.A.", "usa"),
        ("the-end", "theend"),  # punctuation goes before articles are looked for
        ("'A' theatre", "theatre"),
        ("1,000 $5", "1000 5"),
        ("rock-'n'-the roll", "rocknthe roll"),
        ("Café “the” best", "café “ ” best"),  # quotes outside ASCII stay, and end a word
        ("_a_ b", "b"),  # an underscore is punctuation
    ],
)
def test_normalise_by_hand(text, wanted):
    assert answers.normalise(text) == wanted


def test_scores_of_one_answer_by_hand():
    assert answers.exact_match("The Broncos", "broncos.") == 1
    assert answers.exact_match("The Broncos", "bronco") == 0
    # Two of three words, and two of four: 2·2 / 7.
    assert answers.token_f1("red green blue", "green the red old car", False) == 4 / 7
    assert answers.token_f1("so so good", "so so so", False) == 4 / 6  # as often as it stands there
    assert answers.token_f1("red", "blue", True) == 0


def test_words_that_are_articles_alone():
    """Where SQuAD 1.1 and 2.0 differ: an exact match with no word in common."""
    assert answers.exact_match("the", "a") == 1
    assert answers.token_f1("the", "a", unanswerable=False) == 0
    assert answers.token_f1("the", "a", unanswerable=True) == 1
    assert answers.token_f1("the", "red", unanswerable=True) == 0


def test_squad_1_by_hand():
    given = {"q1": ["the red car", "car"], "q2": ["Paris"], "q3": ["in 1999", "1999"]}
    predicted = {"q1": "a car", "q2": "London", "q3": "by 1999", "q4": "no question's"}
    # Exact 1, 0, 0; F1 1, 0, and of 1 and 2 words 1 in common: 2/3.
    assert squad_1(given, predicted) == pytest.approx(
        {"exact": 100 / 3, "f1": 100 * (1 + 2 / 3) / 3, "total": 3}
    )


def test_squad_2_by_hand():
    given = {"q1": ["red car"], "q2": [], "q3": [], "q4": ["blue"]}
    predicted = {"q1": "car", "q2": "", "q3": "green", "q4": "blue"}
    doubts = {"q1": 0.1, "q2": 0.9, "q3": 0.6, "q4": 0.7}
    halves = {
        "exact": 50, "f1": 100 * (2 / 3 + 2) / 4, "total": 4,
        "has_answer_exact": 50, "has_answer_f1": 100 * (2 / 3 + 1) / 2, "has_answer_total": 2,
        "no_answer_exact": 50, "no_answer_f1": 50, "no_answer_total": 2,
    }  # fmt: skip
    assert squad_2(given, predicted) == pytest.approx(halves)
    # Exact: none answered 2; q1 2; q3 1; q4 2; q2 2. F1: 2; 2⅔; 1⅔; 2⅔; 2⅔.
    best = {"best_exact": 50, "best_exact_threshold": 0}
    best |= {"best_f1": 100 * (8 / 3) / 4, "best_f1_threshold": 0.1}
    assert squad_2(given, predicted, doubts) == pytest.approx(halves | best)
    # Above 0.6 are q2 and q4: q4's answer is lost, and the rest as it was.
    told = squad_2(given, predicted, doubts, threshold=0.6)
    assert told["exact"] == 25 and told["f1"] == pytest.approx(100 * (2 / 3 + 1) / 4)
    assert told["has_answer_exact"] == 0 and told["no_answer_exact"] == 50
    assert {name: told[name] for name in best} == pytest.approx(best)
    # At 0.1 q3 is withheld too, which is right.
    assert squad_2(given, predicted, doubts, threshold=0.1)["no_answer_exact"] == 100


def test_answers_of_articles_alone_in_squad_2():
    """No answer is left, and the question still counts among those that have one."""
    found = squad_2({"q1": ["the"], "q2": ["a", "red"]}, {"q1": "", "q2": ""})
    assert found["has_answer_exact"] == 50 and found["has_answer_total"] == 2
    assert not any(name.startswith("no_answer") for name in found)


# The same once more: letter by letter, word by word.


def plain(text):
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    runs = [" " if run in ("a", "an", "the") else run for run in re.findall(r"\w+|\W+", kept)]
    return "".join(runs).split()


def plain_scores(given, prediction, unanswerable):
    if unanswerable:
        given = [answer for answer in given if plain(answer)] or [""]
    exact, f1 = [], []
    for answer in given:
        right, guessed = plain(answer), plain(prediction)
        exact.append(float(right == guessed))
        rest, common = list(guessed), 0
        for word in right:
            if word in rest:
                rest.remove(word)
                common += 1
        if unanswerable and not (right and guessed):
            f1.append(float(right == guessed))
        elif not common:
            f1.append(0.0)
        else:
            precision, recall = common / len(guessed), common / len(right)
            f1.append(2 * precision * recall / (precision + recall))
    return max(exact), max(f1)


def random_questions(seed, unanswerable, ties=False):
    random = np.random.default_rng(seed)
    given, predicted, doubts = {}, {}, {}
    for name in map(str, range(25)):
        low = 0 if unanswerable else 1
        given[name] = [texts(random) for _ in range(random.integers(low, 4))]
        own = given[name] and random.random() < 0.5
        predicted[name] = str(random.choice(given[name])).upper() if own else texts(random)
        doubts[name] = float(random.integers(-2, 3) if ties else random.normal())
    return given, predicted, doubts


@pytest.mark.parametrize("unanswerable", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_equal_to_the_restatement(seed, unanswerable):
    given, predicted, _ = random_questions(seed, unanswerable)
    wanted = np.array([plain_scores(given[q], predicted[q], unanswerable) for q in given])
    found = answers.each_question(given, predicted, unanswerable)
    assert found.questions == list(given)
    assert found.exact.tolist() == wanted[:, 0].tolist()
    assert found.f1 == pytest.approx(wanted[:, 1], rel=1e-12)
    whole = squad_2(given, predicted) if unanswerable else squad_1(given, predicted)
    means = 100 * wanted.mean(0)
    assert (whole["exact"], whole["f1"]) == pytest.approx(tuple(means))
    assert 0 < means.min() and means.max() < 100


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_no_threshold_is_better_than_the_best(seed, ties):
    given, predicted, doubts = random_questions(seed, True, ties)
    found = squad_2(given, predicted, doubts)
    tried = [-1e9, *sorted(doubts.values())]
    for name in ("exact", "f1"):
        reached = [squad_2(given, predicted, doubts, threshold=t)[name] for t in tried]
        best, at = found[f"best_{name}"], found[f"best_{name}_threshold"]
        assert best == pytest.approx(max(reached), rel=1e-12)
        assert squad_2(given, predicted, doubts, threshold=at)[name] == pytest.approx(best)
        lower = [value for t, value in zip(tried[1:], reached[1:], strict=True) if t < at]
        assert all(value < best - 1e-9 for value in lower)  # the lowest of the best


@pytest.mark.parametrize("seed", range(30))
def test_thresholds_are_those_of_the_published_search(seed):
    """Which adds one question after the other, from the surest that there is an answer."""
    given, predicted, doubts = random_questions(seed, True)
    predicted = {name: text if plain(text) else "" for name, text in predicted.items()}
    doubts = {name: 1 / (1 + np.exp(-value)) for name, value in doubts.items()}
    found = squad_2(given, predicted, doubts)
    for place, name in enumerate(("exact", "f1")):
        now = best = sum(not answer for answer in given.values())
        at = 0.0
        for question in sorted(doubts, key=doubts.__getitem__):
            if given[question]:
                now += plain_scores(given[question], predicted[question], True)[place]
            elif predicted[question]:
                now -= 1
            if now > best + 1e-12:
                best, at = now, doubts[question]
        assert found[f"best_{name}"] == pytest.approx(100 * best / 25)
        assert found[f"best_{name}_threshold"] == at


def test_withholding_all_is_below_every_doubt():
    """0 where that is below, as for probabilities; for differences of logits it need not be."""
    given, predicted = {"q1": [], "q2": []}, {"q1": "red", "q2": "red"}
    probable = squad_2(given, predicted, {"q1": 0.2, "q2": 0.4})
    assert (probable["best_exact"], probable["best_exact_threshold"]) == (100, 0)
    for lowest in (0.0, -7.5):
        doubts = {"q1": lowest, "q2": 3.0}
        at = squad_2(given, predicted, doubts)["best_exact_threshold"]
        assert np.nextafter(lowest, -np.inf) == at
        assert squad_2(given, predicted, doubts, threshold=at)["exact"] == 100


def test_equal_doubts_are_answered_together_or_not():
    """Between them 100% would stand, which no threshold gives."""
    given, predicted = {"q1": ["red"], "q2": []}, {"q1": "red", "q2": "blue"}
    found = squad_2(given, predicted, {"q1": 0.5, "q2": 0.5})
    assert (found["best_exact"], found["best_exact_threshold"]) == (50, 0)


def test_what_cannot_be_scored():
    given = {"q1": ["red"], "q2": ["blue"], "q3": ["green"]}
    for squad in (squad_1, squad_2):
        with pytest.raises(UserError, match="question q2: no prediction, nor for 1 of the other 2"):
            squad(given, {"q1": "red"})
        with pytest.raises(UserError, match="no questions"):
            squad({}, {"q1": "red"})
    with pytest.raises(UserError, match="question q1: no answer, as SQuAD 2.0"):
        squad_1({"q1": []}, {"q1": ""})
    predicted = dict.fromkeys(given, "red")
    for doubts in ({"q1": 1.0, "q3": 1.0}, {"q1": 1.0, "q2": float("inf"), "q3": 1.0}):
        with pytest.raises(UserError, match="question q2: no finite number"):
            squad_2(given, predicted, doubts)
    with pytest.raises(ValueError, match="a threshold needs no_answer"):
        squad_2(given, predicted, threshold=0.5)
