"""tokenizer.json of Hugging Face: written for our tokenizers, understood of others'.

A description is what `json.loads` gives of such a file.
"""

import base64
import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from sentencepiece import sentencepiece_model_pb2

from bert_jax.data.vocabulary import special_ids
from bert_jax.errors import UserError, one_line

Description = dict[str, Any]
# What SentencePiece's own rules leave of a text (nmt_nfkc) has no U+0001.
_NOTHING = "\x01"
MARKS = {"WordPiece": "##", "BPE": ""}  # of a piece inside a word


def describe(
    model: Description,
    normalizer: Description | None,
    pre_tokenizer: Description,
    decoder: Description,
) -> Description:
    """The parts, without what `complete` adds."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def wordpiece(
    vocab: Mapping[str, int],
    lowercase: bool,
    strip_accents: bool | None = None,  # None: as lowercase
    chinese_characters: bool = True,  # each is a word
) -> Description:
    """BERT's tokenizer. Raises UserError where a special token is missing."""
    model = {
        "type": "WordPiece",
        "unk_token": special_ids(vocab)["unk"][0],
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": dict(vocab),
    }
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": chinese_characters,
        "strip_accents": strip_accents,
        "lowercase": lowercase,
    }
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    return describe(model, normalizer, {"type": "BertPreTokenizer"}, decoder)


def byte_level(
    vocab: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    lowercase: bool,
    prefix_space: bool,  # whether a first word is as one after a space
) -> Description:
    """GPT-2's and RoBERTa's tokenizer."""
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": dict(vocab),
        "merges": [list(pair) for pair in merges],
    }
    bytes_ = {
        "type": "ByteLevel",
        "add_prefix_space": prefix_space,
        "trim_offsets": True,
        "use_regex": True,
    }
    return describe(model, {"type": "Lowercase"} if lowercase else None, bytes_, bytes_)


def unigram(
    proto: sentencepiece_model_pb2.ModelProto,  # type: ignore[name-defined]
    before: Sequence[Description] = (),
) -> Description:
    """A SentencePiece unigram model; `before`: normalizers before the model's own.

    The ids are SentencePiece's but for sums that tie ("------" in two ways): it adds in 32 bits,
    where rounding decides, and tokenizers in 64.
    """
    steps = [*before, *_normalizers(proto.normalizer_spec)]
    mark = "▁"
    scores = [piece.score for piece in proto.pieces if piece.type == piece.NORMAL]
    vocab = []
    for piece in proto.pieces:
        score = piece.score
        if piece.type == piece.USER_DEFINED:  # SentencePiece prefers it to all others
            score = len(piece.piece.encode()) * max(scores) - 0.1
        vocab.append([piece.piece, score])
    model = {
        "type": "Unigram",
        "unk_id": next(i for i, p in enumerate(proto.pieces) if p.type == p.UNKNOWN),
        "vocab": vocab,
        "byte_fallback": proto.trainer_spec.byte_fallback,
    }
    # The space before a first word is a normalizer's, since Metaspace gives none to "▁".
    whole = any(mark in piece.piece[1:] for piece in proto.pieces)
    pre_tokenizer = {
        "type": "Metaspace",
        "replacement": mark,
        "prepend_scheme": "never",
        "split": not whole,
    }
    if proto.normalizer_spec.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": mark})
    decoder = pre_tokenizer | {"prepend_scheme": "always", "split": True}
    return describe(model, {"type": "Sequence", "normalizers": steps}, pre_tokenizer, decoder)


def _normalizers(spec: sentencepiece_model_pb2.NormalizerSpec) -> list[Description]:  # type: ignore[name-defined]
    """SentencePiece's normalization. Precompiled alone is not the same: it looks at a letter and
    its accents as one, and where it knows the letter it loses the accents."""
    steps: list[Description] = []
    if spec.precompiled_charsmap:
        table = {
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(spec.precompiled_charsmap).decode(),
        }
        precompiled = tokenizers.normalizers.Precompiled(spec.precompiled_charsmap)
        if precompiled.normalize_str(_NOTHING) == "":
            # Accents that make no letter with what they stand on are put apart from it.
            marks = r"(?=[\p{M}\x{200c}\x{200d}\x{0e33}\x{0eb3}])"
            steps += [{"type": "NFC"}, _replace(marks, _NOTHING)]
        steps.append(table)
    if spec.remove_extra_whitespaces:
        steps += [_replace(r"\A +| +\z", ""), _replace(" {2,}", " ")]
    return steps


def _replace(expression: str, content: str) -> Description:
    return {"type": "Replace", "pattern": {"Regex": expression}, "content": content}


def complete(description: Description) -> Description:
    """With the five special tokens declared and put around a text, and nothing cut or padded.

    What is there already stays: a post-processor, another special token. Raises UserError for a
    model that is none of ours, and where a special token is missing.
    """
    description = copy.copy(description)
    model = description["model"] = {"type": _kind(description["model"]), **description["model"]}
    kind = model["type"]
    if kind not in ("WordPiece", "BPE", "Unigram"):
        raise UserError(f"its model is {kind}, and WordPiece, Unigram and byte-level BPE are read")
    if kind == "BPE" and not any(node.get("type") == "ByteLevel" for node in _nodes(description)):
        raise UserError("its BPE is not byte-level, and of BPE byte-level alone is read")
    description["truncation"] = description["padding"] = None
    found = special_ids({piece: number for number, piece in enumerate(pieces(description))})
    ours = dict(found.values())
    added = {token["content"]: dict(token) for token in description.get("added_tokens") or []}
    for role, (name, number) in found.items():
        fresh = {
            "id": number,
            "content": name,
            "single_word": False,
            # The space before a typed mask belongs to the word that it hides.
            "lstrip": role == "mask" and kind != "WordPiece",
            "rstrip": False,
            "normalized": False,
        }
        added[name] = added.get(name, fresh) | {"special": True}
    description["added_tokens"] = sorted(added.values(), key=lambda token: token["id"])
    if not description.get("post_processor"):
        cls, sep = found["cls"][0], found["sep"][0]
        doubled = cls == "<s>"
        around = _around_bytes if doubled and kind == "BPE" else _around
        ends = (cls, ours[cls]), (sep, ours[sep])
        description["post_processor"] = around(*ends, doubled)
    return description


def _kind(model: Description) -> str:
    """Files before 2023 do not name the model's type."""
    if "type" in model:
        return model["type"]
    if "merges" in model:
        return "BPE"
    if isinstance(model["vocab"], list):
        return "Unigram"
    return "WordPiece" if "max_input_chars_per_word" in model else "WordLevel"


def _around(cls: tuple[str, int], sep: tuple[str, int], doubled: bool) -> Description:
    """[CLS] A [SEP] B [SEP], of types 0 and 1 (Devlin et al. 2018, figure 2); `doubled`: <s> A
    </s></s> B </s>, all of type 0, as where the special tokens are spelled so (Liu et al. 2019)."""
    second = 0 if doubled else 1

    def special(name: str, kind: int) -> Description:
        return {"SpecialToken": {"id": name, "type_id": kind}}

    def text(name: str, kind: int) -> Description:
        return {"Sequence": {"id": name, "type_id": kind}}

    single = [special(cls[0], 0), text("A", 0), special(sep[0], 0)]
    between = [special(sep[0], 0)] if doubled else []
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, *between, text("B", second), special(sep[0], second)],
        "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]}
            for name, number in sorted([cls, sep])
        },
    }


def _around_bytes(cls: tuple[str, int], sep: tuple[str, int], doubled: bool) -> Description:
    """The doubled form for byte-level pieces, whose offsets leave out the space."""
    return {
        "type": "RobertaProcessing",
        "sep": list(sep),
        "cls": list(cls),
        "trim_offsets": True,
        "add_prefix_space": True,
    }


def pieces(description: Description) -> list[str]:
    """By id, those of the model and those added; '' where no piece has the id."""
    vocab = description["model"]["vocab"]
    if isinstance(vocab, list):
        by_id = {number: piece for number, (piece, _) in enumerate(vocab)}
    else:
        by_id = {number: piece for piece, number in vocab.items()}
    by_id |= {token["id"]: token["content"] for token in description.get("added_tokens") or []}
    return [by_id.get(number, "") for number in range(max(by_id, default=-1) + 1)]


def joined(run: Sequence[str], mark: str) -> str:
    """The piece that pieces side by side become; `mark`: of those inside a word."""
    return run[0] + "".join(piece.removeprefix(mark) for piece in run[1:])


def with_merged(description: Description, runs: Sequence[Sequence[str]]) -> Description:
    """With a piece for each run, behind all others. In BPE, where a run is a pair, the merge comes
    last as well: what the merges before it make of a text is what they made."""
    model, number = description["model"], len(pieces(description))
    new = (joined(run, MARKS[model["type"]]) for run in runs)
    vocab = model["vocab"] | {piece: number + place for place, piece in enumerate(new)}
    changed = {"vocab": vocab}
    if model["type"] == "BPE":
        in_lines = model["merges"] and isinstance(model["merges"][0], str)  # older files
        merges = [" ".join(run) if in_lines else list(run) for run in runs]
        changed["merges"] = [*model["merges"], *merges]
    return description | {"model": model | changed}


def hide_special(description: Description) -> Description:
    """The same ids, the special ones under names with a space, which no model sees in a text: a
    Unigram model would find its special tokens there and prefer them."""
    model = description["model"]
    found = special_ids({piece: number for number, piece in enumerate(pieces(description))})
    hidden = {name: f" {name}" for name, _ in found.values()}
    if model["type"] != "Unigram":  # the others ask for it by its name
        del hidden[found["unk"][0]]
    vocab = model["vocab"]
    if isinstance(vocab, list):
        vocab = [[hidden.get(piece, piece), score] for piece, score in vocab]
    else:
        vocab = {hidden.get(piece, piece): number for piece, number in vocab.items()}
    added = [
        token | {"content": hidden.get(token["content"], token["content"])}
        for token in description["added_tokens"]
    ]
    return description | {"model": model | {"vocab": vocab}, "added_tokens": added}


def without_prefix(description: Description) -> Description:
    """For a text that goes on inside a word: no space is put before it."""
    description = description | {
        part: copy.deepcopy(description[part]) for part in ("normalizer", "pre_tokenizer")
    }
    for node in _nodes(description):
        if node.get("type") == "ByteLevel":
            node["add_prefix_space"] = False
        if node.get("type") == "Metaspace":
            node["prepend_scheme"] = "never"
        if node.get("type") == "Prepend":
            node["prepend"] = ""
    return description


def _nodes(description: Description) -> list[Description]:
    """The normalizers and pre-tokenizers, out of their sequences."""
    nodes: list[Description] = []
    pending = [description.get("normalizer"), description.get("pre_tokenizer")]
    while pending:
        node = pending.pop()
        if node:
            nodes.append(node)
            pending += node.get("normalizers", []) + node.get("pretokenizers", [])
    return nodes


def build(description: Description) -> tokenizers.Tokenizer:
    """Raises UserError where tokenizers cannot make one of it."""
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(description))
    except Exception as error:  # the extension raises no kind of its own
        reason = one_line(error, 200)
        raise UserError(f"the tokenizers package says: {reason}") from error
