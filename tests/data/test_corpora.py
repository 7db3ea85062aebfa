"""Text in: sentence boundaries, what a docstring is stripped to, user files, installed docs."""

import gzip
import lzma
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bert_jax.data.corpora import held_out
from bert_jax.data.docstrings import prose
from bert_jax.data.sentences import split_sentences
from bert_jax.data.sources import installed, reading
from bert_jax.data.sources.reading import Document
from bert_jax.errors import UserError
from tests.data.reading import documents, fingerprint


@pytest.mark.parametrize(
    "sentences",
    [
        ["One ends here.", "Another begins!", "Does it?", "Yes."],
        ["Use a mapping, e.g. a dict, i.e. {}, cf. Smith vs. Jones and Fig. 3.", "Then stop."],
        ["Dr. J. R. Smith and Donald E. Knuth wrote it.", "We read it."],
        ["The default is 3.14 for np.float64 values.", "See os.path.join for more."],
        ["Lists, tuples, etc. are fine.", "So are sets, etc.", "Nothing else is."],
        ["It is no. 3 of them.", "The answer is no.", "That is all."],
        ['He said "stop."', "(It was late.)", "Nobody did."],
        ["The shape of the input.", "axis may be negative."],
        ["Wait ... there is more.", "Really?!", "Yes..."],
        ["1. First comes the number of an item.", "The result is then 2.", "It holds."],
        ["No boundary at all"],
    ],
)
def test_split_sentences(sentences: list[str]) -> None:
    assert split_sentences("  " + " \n ".join(sentences)) == sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["他来了。", "你好吗？", "很好！", "再见"],
        ["他说：“走吧！”他们走了。", "他说：“好。”", "“真的？”", "“是。”", "好。"],
        ["円周率は３．１４である。", "「行こう！」と彼は言った．", "終わり｡", "次。"],
        ["वह आया।", "कौन था?", "राम॥", "हाँ।"],
        ["هل جاء؟", "نعم۔", "لا."],
        ["Նա եկավ։", "Այո։"],
        ["እሱ መጣ።", "ማን፧", "አዎ።"],
        ["သူလာသည်။", "ဟုတ်ကဲ့။"],
    ],
)
@pytest.mark.parametrize("between", ["", " "])
def test_sentences_of_other_scripts(sentences: list[str], between: str) -> None:
    text = between.join(sentences)
    if "?" in text or ". " in text:  # a Latin mark needs its space
        text = " ".join(sentences)
    assert split_sentences(text) == sentences


def test_split_sentences_is_linear_without_boundaries() -> None:
    assert len(split_sentences("an e.g. b " * 100_000)) == 1


def test_split_sentences_of_nothing() -> None:
    assert split_sentences(" \n\t ") == []


NUMPY_DOCSTRING = r"""
    Return the *weighted* mean of ``x``, which is
    wrapped over two lines [1]_.

    .. math:: \sum_i w_i x_i

    .. note:: This is a note that should be kept.

    Parameters
    ----------
    x, y : array_like, optional
        The values of which the mean is taken.
    axis : int

    Returns
    -------
    float
        The mean, computed by :func:`~numpy.mean` or `that <there>`_ function.

    See Also
    --------
    median : The value in the middle of the others.

    Notes
    -----
    A table follows, and it is not English at all::

        a literal block that should not be here

    =====  ======================
    name   what the name is for
    =====  ======================
    alpha  the first of the names
    =====  ======================

    +-----+----------------------+
    | key | the value of the key |
    +-----+----------------------+

    The angle is :math:`\theta` here. The rest is :math:`\frac{a}{b}` of the whole.

    References
    ----------
    .. [1] A. Author, "The title of a paper", The Journal, 1970.

    Examples
    --------
    This is how it is used in a session:

    >>> mean([1, 2, 3])
    this is the output of the example

    And this is the end.
    """


def test_prose_of_a_numpydoc_docstring() -> None:
    assert list(prose(NUMPY_DOCSTRING)) == [
        "Return the weighted mean of x, which is wrapped over two lines.",
        "This is a note that should be kept.",
        "x, y : array_like, optional. The values of which the mean is taken.",
        "float The mean, computed by numpy.mean or that function.",
        "median : The value in the middle of the others.",
        "A table follows, and it is not English at all:",
        "The angle is \\theta here. The rest is \\frac{a}{b} of the whole.",
        "This is how it is used in a session:",
        "And this is the end.",
    ]


def test_prose_of_a_google_docstring() -> None:
    docstring = """Apply the function to all of them.

    Args:
      x: The array that it is applied to,
        which may be of any shape.
      axis (int): int, default=None. The axis along which it is applied.

    Returns:
      An array of the shape of the input.

    Raises:
      ValueError: If the shapes of the two differ.

    ```python
    the = code(that, is_in="a fence")
    ```

    - A first point of a list that
      goes on.
    - The second point of the list.

    :param x: the value that is given
    :type x: int or the name of a type
    """
    assert list(prose(docstring)) == [
        "Apply the function to all of them.",
        "Args: x: The array that it is applied to, which may be of any shape.",
        "axis (int): int, default=None. The axis along which it is applied.",
        "Returns: An array of the shape of the input.",
        "Raises: ValueError: If the shapes of the two differ.",
        "A first point of a list that goes on.",
        "The second point of the list.",
        ":param x: the value that is given :type x: int or the name of a type",
    ]


def test_prose_drops_what_is_not_english() -> None:
    assert list(prose("x = f(y)\n\nToo short this.\n\nfoo(bar, baz) -> [a, b, c, d]\n\n")) == []
    assert list(prose("")) == []


def test_plain_text_documents(tmp_path: Path) -> None:
    path = tmp_path / "two.txt"
    path.write_bytes("\ufeff\nA café. It is open.\r\nNext line.\n\n\n \nSecond".encode())
    expected = [
        Document("two.txt:0", ("A café. It is open.\r\n", "Next line.\n")),
        Document("two.txt:1", ("Second",)),
    ]
    assert list(documents(str(path))) == expected
    for module, suffix in ((gzip, ".gz"), (lzma, ".xz")):
        packed = tmp_path / f"two.txt{suffix}"
        packed.write_bytes(module.compress(path.read_bytes()))
        assert [d.paragraphs for d in documents(str(packed))] == [d.paragraphs for d in expected]
        assert next(documents(str(packed))).name == f"two.txt{suffix}:0"


def test_plain_text_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_bytes(b"A line.\n\n" * 100_000 + b"\xff")
    found = documents(str(path))
    assert [next(found).name for _ in range(3)] == ["long.txt:0", "long.txt:1", "long.txt:2"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.txt", b"fine\ncaf\xe9\n", "not UTF-8 at line 2, byte 8"),
        ("utf16.txt", "text".encode("utf-16"), "not UTF-8 at line 1, byte 0"),
        ("empty.txt", b"", "no text in it"),
        ("blank.txt", b"\n \n\n", "no text in it"),
        ("cut.gz", gzip.compress(b"words " * 999, mtime=0)[:-12], "damaged .gz file"),
        ("fake.gz", b"plain words", "damaged .gz file"),
        ("fake.xz", b"plain words", "damaged .xz file"),
    ],
)
def test_bad_file(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(documents(str(path)))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source, message in ((tmp_path, "is a folder"), (tmp_path / "none", "no such file")):
        for read in (documents, fingerprint):
            with pytest.raises(UserError, match=message):
                read(str(source))
    long = tmp_path / "long.txt"
    long.write_text("word " * 99)
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 99)
    with pytest.raises(UserError, match="line 1 is longer"):
        documents(str(long))


def test_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text.txt"
    path.write_text("One.")
    before = fingerprint(str(path))
    path.write_text("Two.")
    after = fingerprint(str(path))
    before, after = (facts["sources"][0] for facts in (before, after))
    assert before["bytes"] == after["bytes"] == 4
    assert before["sha256"] != after["sha256"]
    found = fingerprint("installed-docs")
    assert found["sources"][0]["versions"] == installed.installed_docs_versions()
    assert found == fingerprint("installed-docs")
    monkeypatch.setitem(installed.PACKAGES, "no_such_package", "no-such-package")
    for read in (fingerprint, documents):
        with pytest.raises(UserError, match="no_such_package is not installed"):
            read("installed-docs")


def test_held_out() -> None:
    names = [f"document {i}" for i in range(10_000)]
    tenth = {name for name in names if held_out(name, 0.1)}
    assert 900 < len(tenth) < 1100
    assert tenth < {name for name in names if held_out(name, 0.2)}
    assert not any(held_out(name, 0.0) for name in names)
    assert all(held_out(name, 1.0) for name in names)
    # What is held out once stays so: sha256("argparse") begins with 0xab25, which is 0.6685.
    assert held_out("argparse", 0.669)
    assert not held_out("argparse", 0.668)


def test_docstrings_in_source_order(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        textwrap.dedent(
            r'''
            """module"""
            if x:
                def f():
                    """f"""
                    def g(): "g \d"
            add_newdoc("numpy", "name", ("method", """added"""))
            class A:
                """A"""
                async def m(self): """m"""
            '''
        )
    )
    found = list(installed._docstrings(module))
    assert found == ["module", "f", "g \\d", "method", "added", "A", "m"]
    module.write_bytes(b"def broken(:\n")
    assert list(installed._docstrings(module)) == []
    module.write_bytes(b'"""\xff"""')
    assert list(installed._docstrings(module)) == []


def test_installed_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slice that reads in a second: the language reference, and one small package."""
    monkeypatch.setattr(installed, "PACKAGES", {"ml_collections": "ml_collections"})
    everything = installed._modules

    def few(folder: Path, prefix: str) -> list[tuple[str, Path]]:
        found = sorted(everything(folder, prefix))
        return found if prefix else [f for f in found if f[0] in ("argparse", "textwrap", "this")]

    monkeypatch.setattr(installed, "_modules", few)
    found = list(documents("installed-docs"))
    assert found == list(documents("installed-docs"))
    names = [document.name for document in found]
    assert names == sorted(set(names))
    assert {"topic class", "argparse", "textwrap"} <= set(names)
    assert any(name.startswith("ml_collections.") for name in names)
    paragraphs = [paragraph for document in found for paragraph in document.paragraphs]
    assert len(paragraphs) == len(set(paragraphs)) > 500
    assert not any(mark in text for text in paragraphs for mark in (">>>", "``", "::", "\n"))


def test_nothing_is_imported() -> None:
    """Reading the documentation of every package imports none of them."""
    script = """
        import sys
        from bert_jax.data import corpora
        from bert_jax.data.sources import installed
        from bert_jax.data.sources.reading import Cleaning
        before = set(sys.modules)
        corpus = corpora.Corpus("installed-docs")
        next(corpus.documents(Cleaning()))
        corpus.fingerprint()
        loaded = {name.partition(".")[0] for name in sys.modules}
        print(sorted(loaded & (set(installed.PACKAGES) | {"jaxlib", "pydoc_data"})))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
