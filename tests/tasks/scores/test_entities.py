"""Scores of entities: those of seqeval, and worked by hand."""

import numpy as np
import pytest
from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support
from seqeval.scheme import BILOU, Entities

from bert_jax.errors import UserError
from bert_jax.tasks.scores import entities
from bert_jax.tasks.scores.entities import score_entities

TYPES = ("PER", "LOC", "ORG-X")
IOBES = str.maketrans("LU", "ES")  # by which names seqeval's default mode has these parts


def random_tags(random, parts, texts=12, kinds=TYPES):
    """Tags in any order, so that most break the scheme."""
    every = ["O", "O"] + [f"{part}-{kind}" for part in parts for kind in kinds]
    return [
        [str(tag) for tag in random.choice(every, random.integers(0, 12))] for _ in range(texts)
    ]


def disturbed(random, texts, parts, kinds=TYPES):
    """The same lengths; four of five tags stay."""
    every = ["O"] + [f"{part}-{kind}" for part in parts for kind in kinds]
    return [
        [tag if random.random() < 0.8 else str(random.choice(every)) for tag in tags]
        for tags in texts
    ]


def spans(random, bilou):
    """Tags that keep the scheme: entities of one to three tags, and O between them or not."""
    tags: list[str] = []
    while len(tags) < 10:
        kind, length = random.choice(TYPES), int(random.integers(1, 4))
        if random.random() < 0.4:
            tags.append("O")
        elif not bilou:
            tags += [f"B-{kind}"] + [f"I-{kind}"] * (length - 1)
        elif length == 1:
            tags.append(f"U-{kind}")
        else:
            tags += [f"B-{kind}"] + [f"I-{kind}"] * (length - 2) + [f"L-{kind}"]
    return tags


def in_iobes(texts):
    return [[tag[0].translate(IOBES) + tag[1:] for tag in tags] for tags in texts]


def equal_to_seqeval(found, gold, predicted, **how):
    """Overall, and by type."""
    overall = precision_recall_fscore_support(
        gold, predicted, average="micro", zero_division=0, **how
    )
    assert found.overall == pytest.approx(tuple(overall), rel=1e-12)
    by_type = precision_recall_fscore_support(gold, predicted, average=None, zero_division=0, **how)
    assert np.array(list(found.by_type.values())) == pytest.approx(np.array(by_type).T, rel=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_bio_as_seqeval_reads_it_broken_or_not(seed):
    random = np.random.default_rng(seed)
    gold = random_tags(random, "BI") + [spans(random, bilou=False) for _ in range(6)]
    predicted = disturbed(random, gold, "BI")
    found = score_entities(gold, predicted)
    assert 0 < found.overall.f1 < 1
    equal_to_seqeval(found, gold, predicted)
    for tags in gold + predicted:
        assert [(e.type, e.begin, e.end - 1) for e in entities.entities(tags)] == get_entities(tags)


@pytest.mark.parametrize("seed", range(40))
def test_broken_bilou_as_seqeval_reads_iobes(seed):
    random = np.random.default_rng(seed)
    gold = random_tags(random, "BILU") + [spans(random, bilou=True) for _ in range(6)]
    predicted = disturbed(random, gold, "BILU")
    found = score_entities(gold, predicted, "bilou")
    assert 0 < found.overall.f1 < 1
    equal_to_seqeval(found, in_iobes(gold), in_iobes(predicted))


@pytest.mark.parametrize("seed", range(10))
def test_whole_bilou_as_seqeval_reads_it_strictly(seed):
    random = np.random.default_rng(seed)
    gold = [spans(random, bilou=True) for _ in range(8)]
    for tags in gold:
        strict = [(e.tag, e.start, e.end) for e in Entities([tags], BILOU).entities[0]]
        assert strict and entities.entities(tags, "bilou") == strict


@pytest.mark.parametrize(
    "tags, found",
    [
        ("", []),
        ("O O", []),
        ("B-A I-A O", [("A", 0, 2)]),
        ("B-A B-A", [("A", 0, 1), ("A", 1, 2)]),
        ("I-A I-A", [("A", 0, 2)]),  # begins without B
        ("B-A I-B I-A", [("A", 0, 1), ("B", 1, 2), ("A", 2, 3)]),  # the type changes
        ("B I O I", [("_", 0, 2), ("_", 3, 4)]),
        ("B-A-B I-A-B I-A", [("A-B", 0, 2), ("A", 2, 3)]),
    ],
)
def test_bio_by_hand(tags, found):
    assert entities.entities(tags.split()) == found


@pytest.mark.parametrize(
    "tags, found",
    [
        ("B-A I-A L-A U-A", [("A", 0, 3), ("A", 3, 4)]),
        ("L-A L-A", [("A", 0, 1), ("A", 1, 2)]),
        ("U-A I-A", [("A", 0, 1), ("A", 1, 2)]),
        ("B-A O", [("A", 0, 1)]),  # never ended
        ("B-A U-A L-A", [("A", 0, 1), ("A", 1, 2), ("A", 2, 3)]),
    ],
)
def test_bilou_by_hand(tags, found):
    assert entities.entities(tags.split(), "bilou") == found


def test_scores_by_hand():
    gold = ["B-PER I-PER O B-LOC".split(), "B-LOC O".split()]
    predicted = ["B-PER I-PER O B-PER".split(), "B-LOC O".split()]
    found = score_entities(gold, predicted)
    assert found.overall == (2 / 3, 2 / 3, 2 / 3, 3)
    assert found.by_type == {"LOC": (1, 1 / 2, 2 / 3, 2), "PER": (1 / 2, 1, 2 / 3, 1)}


def test_an_entity_does_not_reach_into_the_next_text():
    apart, together = [["B-A"], ["I-A"]], [["B-A", "I-A"]]
    assert score_entities(apart, apart).overall.support == 2
    assert score_entities(together, together).overall.support == 1


def test_without_entities_the_scores_are_0():
    assert score_entities([["O"], []], [["O"], []]).overall == (0, 0, 0, 0)
    assert score_entities([["O"]], [["B-A"]]).by_type == {"A": (0, 0, 0, 0)}
    assert score_entities([["B-A"]], [["O"]]).overall == (0, 0, 0, 1)


def test_counts_of_some_texts_score_as_those_texts_do():
    """What a bootstrap does."""
    random = np.random.default_rng(3)
    gold = random_tags(random, "BI")
    predicted = disturbed(random, gold, "BI")
    counts = entities.count_entities(gold, predicted)
    rows = random.integers(0, len(gold), len(gold))
    found = entities.score_counts({name: count[rows] for name, count in counts.items()})
    again = score_entities([gold[i] for i in rows], [predicted[i] for i in rows])
    assert found.overall == again.overall and found.overall.support > 0
    assert again.by_type == {name: found.by_type[name] for name in again.by_type}


@pytest.mark.parametrize("tag", ["L-PER", "PER", "E-PER", "BI-PER", "", "b-PER", "o", "-PER"])
def test_a_tag_of_another_scheme_is_named(tag):
    with pytest.raises(UserError, match=f"tag '{tag}': BIO has O, and B, I"):
        score_entities([["O", tag]], [["O", "O"]])


def test_what_cannot_be_scored():
    for gold, predicted in [([["O"]], [["O", "O"]]), ([["O"]], [["O"], ["O"]])]:
        with pytest.raises(ValueError, match="lengths differ"):
            score_entities(gold, predicted)
    with pytest.raises(UserError, match="no examples"):
        score_entities([], [])
