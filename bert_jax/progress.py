"""A bar for long work on a terminal; nothing where nobody looks."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def _bar(*columns: str) -> Progress:
    """Description, bar, count, time taken and left, then the task's own fields."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), *(TextColumn("{task.fields[" + name + "]}") for name in columns),
        console=Console(stderr=True), disable=not sys.stderr.isatty(),
    )  # fmt: skip


@contextmanager
def preparing() -> Iterator[Callable[[str, int], None]]:
    """A report for `prepare`: what is done, and for how many documents (their number is not
    known beforehand)."""
    with _bar() as bar:
        tasks: dict[str, TaskID] = {}

        def report(what: str, documents: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"{what} (documents)", total=None)
            bar.update(tasks[what], completed=documents)

        yield report


@contextmanager
def training(start: int, steps: int) -> Iterator[Callable[[int, dict], None]]:
    """A report for the train loop: the step it is at, and a record when one was logged.

    Held-out scores are printed as lines that stay, on a terminal or not.
    """
    with _bar("numbers") as bar:
        task = bar.add_task("pretraining", total=steps, completed=start, numbers="")

        def report(step: int, record: dict) -> None:
            bar.update(task, completed=step)
            if "loss" in record:
                speed = record["tokens_per_second"]
                shown = f"loss {record['loss']:.3f}" + (f"  {speed:,.0f} tokens/s" if speed else "")
                bar.update(task, numbers=shown)
            if "eval_loss" in record:
                scores = "  ".join(
                    f"{name.removeprefix('eval_')} {value:.4f}"
                    for name, value in record.items()
                    if name.startswith("eval_") and name.endswith(("_loss", "_accuracy"))
                )
                print(f"step {step}: held out {scores}", flush=True)

        yield report
