"""Text to ids, and what a typed [MASK] means."""

import pytest

from bert_jax.data.tokenizers import (
    CLS,
    MASK,
    PAD,
    SEP,
    SPECIAL,
    UNK,
    load_tokenizer,
    train_tokenizer,
)
from bert_jax.errors import UserError
from tests import tiny


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(tiny.sentences(400), 200, lowercase=True)


def test_special_tokens_have_fixed_ids(tokenizer):
    assert (PAD, UNK, CLS, SEP, MASK) == (0, 1, 2, 3, 4)
    assert tokenizer.vocab_size == 200
    assert tuple(tokenizer.piece(i) for i in range(5)) == SPECIAL


@pytest.mark.parametrize("token", SPECIAL)
def test_text_never_gives_a_special_id(tokenizer, token):
    ids = tokenizer.encode([f"the {token} garden", token])
    assert not {PAD, CLS, SEP, MASK} & {i for row in ids for i in row}


def test_a_typed_mask_gives_the_ids_of_a_masked_word(tokenizer):
    """However many pieces a word has, and whatever follows it without a space."""
    words = 0
    for sentence in tiny.sentences(60, seed=1):
        ids, offsets = tokenizer.encode_with_offsets(sentence)
        pieces = [tokenizer.piece(token) for token in ids]
        starts = [place for place, piece in enumerate(pieces) if piece.startswith("▁")]
        for first, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            while pieces[end - 1] in ".,":
                end -= 1
            count = end - first
            typed = (
                sentence[: offsets[first][0]].rstrip()
                + (" " if first else "")
                + "[MASK]" * count
                + sentence[offsets[end - 1][1] :]
            )
            hidden = [*ids[:first], *[MASK] * count, *ids[end:]]
            assert tokenizer.encode_prompt(typed) == hidden, (sentence, typed)
            words += 1
    assert words > 300


def test_prompt_without_a_mask_is_plain_text(tokenizer):
    text = "The small garden."
    assert tokenizer.encode_prompt(text) == tokenizer.encode([text])[0]
    assert tokenizer.encode_prompt("[MASK]") == [MASK]
    assert tokenizer.encode_prompt("[MASK][MASK] river") == [
        MASK,
        MASK,
        *tokenizer.encode(["river"])[0],
    ]


def test_offsets_cover_the_text(tokenizer):
    text = "Every quiet window forgets its table."
    ids, offsets = tokenizer.encode_with_offsets(text)
    assert ids == tokenizer.encode([text])[0]
    assert "".join(text[start:end] for start, end in offsets) == text


def test_lower_case_and_back(tokenizer):
    assert tokenizer.encode(["THE GARDEN"]) == tokenizer.encode(["the garden"])
    ids = tokenizer.encode(["the garden"])[0]
    assert tokenizer.decode([CLS, *ids, MASK, SEP]) == "[CLS] the garden [MASK] [SEP]"
    cased = train_tokenizer(tiny.sentences(400), 200, lowercase=False)
    assert cased.encode(["The"]) != cased.encode(["the"])


def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).sha256 == tokenizer.sha256


def test_training_repeats(tokenizer):
    assert train_tokenizer(tiny.sentences(400), 200, lowercase=True).model == tokenizer.model


def test_bad_tokenizers_are_named(tmp_path):
    with pytest.raises(UserError, match="no tokenizer can be read"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="no tokenizer can be read"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="model.vocab_size=5000"):
        train_tokenizer(tiny.sentences(40), 5000, lowercase=True)
