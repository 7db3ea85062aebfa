"""What a classifier confuses, and how far its probabilities can be believed, as a picture."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bert_jax.files import write_whole
from bert_jax.store import Folder
from bert_jax.tasks.scores.classes import Reliability

_READABLE = 20  # classes whose counts and names can be read


def draw_classes(
    path: Folder,
    matrix: Int[np.ndarray, "C C"],
    names: Sequence[str],
    reliability: Reliability,
    title: str,
) -> Folder:
    """The confusion matrix, coloured by the share of the row, beside the calibration curve, as a
    PNG. `names` are those of the classes. No display is needed. Returns the path."""
    if len(names) != len(matrix):
        raise ValueError(f"{len(names)} names of {len(matrix)} classes")
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)  # whatever backend is set elsewhere
    left, right = figure.subplots(1, 2)
    _draw_matrix(left, matrix, names)
    _draw_calibration(right, reliability)
    figure.suptitle(title, parse_math=False)
    picture = io.BytesIO()
    canvas.print_figure(picture, dpi=120, format="png")
    write_whole(path, picture.getvalue())
    return path


def _draw_matrix(axis: Axes, matrix: Int[np.ndarray, "C C"], names: Sequence[str]) -> None:
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= _READABLE:
        for (row, column), count in np.ndenumerate(matrix):
            ink = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, f"{count}", ha="center", va="center", color=ink, fontsize=8)
        for set_ticks, slant in ((axis.set_xticks, 45), (axis.set_yticks, 0)):
            # A dollar sign in a name is no formula.
            set_ticks(range(len(names)), names, rotation=slant, ha="right", parse_math=False)
    axis.set(title="examples", xlabel="predicted", ylabel="label")


def _draw_calibration(axis: Axes, reliability: Reliability) -> None:
    """Accuracy against confidence, a point a bin that has examples, and what share each has."""
    some = reliability.counts > 0
    middles = (np.arange(len(some)) + 0.5) / len(some)
    shares = reliability.counts / reliability.counts.sum()
    axis.bar(middles, shares, 1 / len(some), color="lightgrey", label="share of the examples")
    axis.plot([0, 1], [0, 1], color="grey", linestyle="--", label="as sure as right")
    points = reliability.confidence[some], reliability.accuracy[some]
    axis.plot(*points, marker="o", label=f"calibration error {reliability.error:.3f}")
    axis.set(title="calibration", xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axis.legend(loc="upper left")
    axis.grid(alpha=0.3)
