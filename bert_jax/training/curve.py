"""The learning curve as a picture."""

import io

from bert_jax.files import write_whole
from bert_jax.store import Folder
from bert_jax.training.metrics import read_metrics

FILE = "curve.png"


def draw_curve(workdir: Folder, title: str) -> Folder:
    """Each term's training and held-out loss against the step, from metrics.jsonl, and the loss of
    predictors that read no context, as lines. Returns the PNG's path."""
    from matplotlib.figure import Figure  # half a second, once a run at most

    records = read_metrics(workdir)
    names = {name for record in records for name in record if name.endswith("_loss")}
    terms = sorted(name for name in names if not name.startswith("eval_"))
    if not terms:  # of a record that was lost
        return workdir / FILE
    figure = Figure(figsize=(6 * len(terms), 4), layout="constrained")  # needs no display
    axes = figure.subplots(1, len(terms), squeeze=False)
    for axis, term in zip(axes[0], terms, strict=True):
        for name, style in ((term, {"alpha": 0.5}), (f"eval_{term}", {"marker": "o"})):
            points = [(r["step"], r[name]) for r in records if r.get(name) is not None]
            label = "held out" if name.startswith("eval_") else "training"
            axis.plot(*zip(*points, strict=True), label=label, **style)
        name = term.removesuffix("_loss")
        for line, label, dashes in (
            ("unigram" if name == "mlm" else "", "unigram", "--"),
            (f"{name}_constant", "constant", ":"),
            (f"{name}_frequency", "token frequency", "--"),
        ):
            if found := [r[key] for r in records if (key := f"eval_{line}_loss") in r]:
                axis.axhline(found[-1], color="grey", linestyle=dashes, label=label)
        axis.set(title=term.removesuffix("_loss").upper(), xlabel="step", ylabel="loss in nats")
        axis.legend()
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    write_whole(workdir / FILE, picture.getvalue())
    return workdir / FILE
