"""The picture of a classifier shows what its numbers say."""

import numpy as np
import pytest
from matplotlib import colormaps, image

from bert_jax.tasks.scores import classes, picture


def calibration(confidence, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, 200)
    sure = np.full(200, confidence)
    return classes.reliability(labels, np.stack([sure, 1 - sure], 1))


def draw(path, matrix, confidence=0.9, names=None):
    """The halves of the picture as bytes [H W 3]."""
    names = names or [f"class {i}" for i in range(len(matrix))]
    assert picture.draw_classes(path, matrix, names, calibration(confidence), "a title") == path
    pixels = (image.imread(path)[:, :, :3] * 255).round().astype(int)
    middle = pixels.shape[1] // 2
    return pixels[:, :middle], pixels[:, middle:]


def area(pixels, share):
    """How many pixels have the colour of that share of a row."""
    colour = np.round(np.array(colormaps["Blues"](float(share))[:3]) * 255)
    return int(np.sum(np.abs(pixels - colour).max(2) <= 1))


def test_cells_have_the_colour_of_their_share(tmp_path):
    path = tmp_path / "classes.png"
    left, right = draw(path, np.array([[8, 0, 0], [2, 6, 0], [0, 0, 50]]))
    assert path.read_bytes().startswith(b"\x89PNG") and left.shape[0] > 400
    whole, quarter, most = (area(left, share) for share in (1, 0.25, 0.75))
    assert whole > 10_000
    assert quarter == pytest.approx(whole / 2, rel=0.1)  # one cell to two
    assert most == pytest.approx(whole / 2, rel=0.1)
    even, same = draw(path, np.full((3, 3), 5))
    assert area(even, 1) < whole / 100 and area(even, 1 / 3) > 3 * whole
    assert np.array_equal(right, same)  # the calibration has nothing to do with it


def test_the_curve_is_of_the_calibration(tmp_path):
    matrix = np.eye(2, dtype=int)
    left, right = draw(tmp_path / "a.png", matrix, 0.9)
    same, other = draw(tmp_path / "b.png", matrix, 0.6)
    assert np.array_equal(left, same) and not np.array_equal(right, other)
    assert np.array_equal(right, draw(tmp_path / "c.png", matrix, 0.9)[1])


def test_an_absent_class_many_classes_and_odd_names(tmp_path):
    left, _ = draw(tmp_path / "a.png", np.array([[4, 0], [0, 0]]), names=["$5 $", "é_{^"])
    assert area(left, 1) > 10_000
    left, _ = draw(tmp_path / "b.png", np.eye(150, dtype=int) * 3)
    assert area(left, 0) > area(left, 1)


def test_names_are_of_the_classes(tmp_path):
    with pytest.raises(ValueError, match="3 names of 2 classes"):
        draw(tmp_path / "a.png", np.eye(2, dtype=int), names=["a", "b", "c"])
    assert not list(tmp_path.iterdir())
