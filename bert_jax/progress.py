"""A bar for long work on a terminal; in a log a line of `prepare` now and then."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
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

LINE_EVERY = 30  # seconds, in a log


def _bar(*columns: str) -> Progress:
    """Description, bar, count, time taken and left, then the task's own fields."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), *(TextColumn("{task.fields[" + name + "]}") for name in columns),
        console=Console(stderr=True), disable=not sys.stderr.isatty(),
    )  # fmt: skip


@contextmanager
def preparing() -> Iterator[Callable[[str, int, int, int], None]]:
    """A report for `prepare`: what is done, for how many documents and characters, and of how
    many characters in all (0: not known). Where it is no terminal, a line every LINE_EVERY
    seconds, and at once where it has to wait, with nothing done."""
    with _bar("numbers") as bar:
        tasks: dict[str, tuple[TaskID, float, int]] = {}
        told = time.monotonic()

        def report(what: str, documents: int, characters: int, total: int) -> None:
            nonlocal told
            now = time.monotonic()
            if what not in tasks:
                task = bar.add_task(what, total=total or None, numbers="")
                tasks[what] = task, now, characters
            task, began, before = tasks[what]
            shown = f"{documents:,} documents" if characters else f"{documents:,}"
            if characters and now > began:
                shown += f"  {(characters - before) / 1e6 / (now - began):.2f} MB/s"
            bar.update(task, completed=characters or documents, total=total or None, numbers=shown)
            waits = not documents and not characters
            if bar.disable and (now - told > LINE_EVERY or waits):
                share = f"{(characters or documents) / total:.0%}, " if total else ""
                print(f"{what}: {share}{shown}" if not waits else what, file=sys.stderr, flush=True)
                told = now

        yield report


@contextmanager
def scoring() -> Iterator[Callable[[int, int], None]]:
    """A report for `evaluate` of plain text: tokens done, and in all. Where it is no terminal, a
    line every LINE_EVERY seconds."""
    with _bar("numbers") as bar:
        task, began = bar.add_task("scoring", total=None, numbers=""), time.monotonic()
        told = began

        def report(done: int, total: int) -> None:
            nonlocal told
            now = time.monotonic()
            rate = f"{done / max(now - began, 1e-9):,.0f} tokens/s"
            bar.update(task, completed=done, total=total, numbers=rate)
            if bar.disable and now - told > LINE_EVERY:
                told = now
                print(f"scoring: {done / total:.0%}, {rate}", file=sys.stderr, flush=True)

        yield report


@contextmanager
def training(
    start: int, steps: int, what: str = "pretraining", scores: Sequence[str] = ()
) -> Iterator[Callable[[int, dict], None]]:
    """A report for the train loop: the step it is at, and a record when one was logged.

    Held-out losses, accuracies and what `scores` names are printed as lines that stay, on a
    terminal or not.
    """
    with _bar("numbers") as bar:
        task = bar.add_task(what, total=steps, completed=start, numbers="")

        def report(step: int, record: dict) -> None:
            bar.update(task, completed=step)
            if record.get("loss") is not None:
                speed = record["tokens_per_second"]
                shown = f"loss {record['loss']:.3f}" + (f"  {speed:,.0f} tokens/s" if speed else "")
                bar.update(task, numbers=shown)
            if "eval_loss" in record:
                found = {name.removeprefix("eval_"): value for name, value in record.items()
                         if name.startswith("eval_")}  # fmt: skip
                told = "  ".join(
                    f"{name} {'not finite' if value is None else f'{value:.4f}'}"
                    for name, value in found.items()
                    if name in scores or name.endswith(("loss", "accuracy"))
                )
                print(f"step {step}: held out {told}", flush=True)

        yield report
