"""The sentences of a paragraph, by rule: the same on every machine, with no download.

Meant for edited English, and for the scripts with marks of their own. Where it is unsure it would
rather not cut.
"""

import re

# Marks that end a sentence without white space after them (Unicode's Sentence_Terminal, of the
# scripts that are written today): Chinese and Japanese; Devanagari and its neighbours; Arabic;
# Armenian; Ethiopic; Burmese and Khmer; Mongolian; Meetei and Ol Chiki; and double marks.
_MARKS = "。！？｡．﹒﹖﹗︒" + "।॥" + "؟۔" + "։" + "።፧፨" + "။។៕" + "᠃᠉" + "꫰꫱꯫᱾᱿" + "‼⁇⁈⁉"
# A candidate boundary: closing punctuation with its quotes and brackets, white space, and what
# may open a sentence. The periods in np.float64 and 3.14 are none: no white space follows.
# Or such marks with theirs.
_CANDIDATE = re.compile(
    rf"""([.!?]+)(["'”’)\]]*)\s+(?=["'“‘(\[`]*[^\W_])"""
    rf"""|([{_MARKS}][{_MARKS}.!?]*)(["'”’)\]」』）】》〉]*)(\s*)(?=\S)"""
)

# Words whose period ends no sentence.
_NEVER_LAST = frozenset(
    "e.g i.e eg ie vs cf viz al approx resp ca dr mr mrs ms prof st rev gen sen rep hon jr sr vol "
    "vols pp chap secs eq eqs eqn eqns fig figs eds trans proc jan feb apr aug sept oct nov dept "
    "univ w.r.t wrt a.k.a aka incl excl".split()
)
# Abbreviations that also end sentences: the next word's capital decides.
_MAYBE_LAST = frozenset(
    "etc inc ltd co corp u.s u.k u.s.a ph.d a.m p.m misc corresp coef coeff coeffs diff dist elem "
    "freq orig param params prob temp".split()
)
# Abbreviations only where a number follows: "no. 3", "Sec. 2", "Mar. 5".
_BEFORE_NUMBER = frozenset("no nos ch ed sec ref refs def num max min mar jun sep dec".split())
_INITIAL = re.compile(r"(?:[A-Z]\.)*[A-Z]")
_OPENING = "\"'“‘([`"


def split_sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph: all of it, unwrapped, but for the space between two."""
    text = " ".join(paragraph.split())
    sentences = []
    start = 0
    for match in _CANDIDATE.finditer(text):
        if _ends_sentence(text, start, match):
            sentences.append(text[start : match.end()].rstrip())
            start = match.end()
    if start < len(text):
        sentences.append(text[start:])
    return sentences


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    if match[3]:
        return _ends_without_space(match, text[match.end()])
    after = text[match.end() : match.end() + 8].lstrip(_OPENING)[:1]
    if match[1] != ".":
        return not after.islower()
    # A window, so that a long text without one boundary does not take quadratic time.
    before = text[max(start, match.start() - 80) : match.start()]
    earlier, _, word = before.rpartition(" ")
    word = word.lstrip(_OPENING)
    folded = word.lower()
    if folded in _MAYBE_LAST:
        return after.isupper()
    if folded in _BEFORE_NUMBER:
        return not after.isdigit()
    if folded in _NEVER_LAST:
        return False
    # A sentence about an identifier begins in lower case ("... the input. axis may be"). Only a
    # long plain word before it tells that from an abbreviation this file does not know.
    if after.islower() and not (len(word) >= 4 and word.isalpha() and word.islower()):
        return False
    # "2. Then" at a sentence's start is the number of a list's item.
    if not earlier and len(word) <= 2 and word.isdigit():
        return False
    # "J. R. Smith" and "Donald E. Knuth", but not "as in plan B. Then": an initial stands at a
    # sentence's start or after a capitalised name.
    if _INITIAL.fullmatch(word):
        name = earlier.rpartition(" ")[2]
        return bool(name) and not name.lstrip(_OPENING)[:1].isupper()
    return True


def _ends_without_space(match: re.Match[str], after: str) -> bool:
    """Not in a full-width 3．14, and not where a quotation may be a part of its sentence, as it
    is in “走吧！”他说。"""
    _, _, marks, closing, space = match.groups()
    if marks == "．" and (after.isdigit() or after.isascii()):
        return False
    return (
        not closing or bool(space) or after in "“‘「『（《【" or (marks == "。" and closing in "”’")
    )
