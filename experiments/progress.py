"""How far a study is, over all of its runs."""

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.runs import Run

_LINE_EVERY = 60  # seconds, in a log
_LOOK_EVERY = 2  # at the metrics of what runs


class Told:
    """A bar over the arithmetic of all runs; in a log a line when a run ends, and now and then."""

    def __init__(self, runs: Sequence[Run]):
        self._flops = {run.name: run.arm.flops for run in runs}
        self._done = dict.fromkeys(self._flops, 0.0)
        self._runs, self._finished = len(runs), 0
        self._looked: dict[str, float] = {}
        self._began = self._told = time.monotonic()
        self._before = 0.0  # what earlier sittings did
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"),
            TimeElapsedColumn(), TextColumn("{task.fields[left]}"),
            console=Console(stderr=True), disable=not sys.stderr.isatty(),
        )  # fmt: skip
        self._task = self._bar.add_task("study", total=sum(self._flops.values()), left="")

    def __enter__(self) -> "Told":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def at(self, run: Run) -> None:
        """A run is being worked on."""
        now = time.monotonic()
        if now - self._looked.get(run.name, 0.0) < _LOOK_EVERY:
            return
        first = run.name not in self._looked
        self._looked[run.name] = now
        share = run.steps_done() / run.arm.steps
        self._add(run, share, earlier=first)
        if now - self._told > _LINE_EVERY and self._bar.disable:
            self._say(f"{run.name} at {share:.0%}")

    def ended(self, run: Run, again: bool = False) -> None:
        """A run is at its end; `again`: since an earlier sitting."""
        self._finished += 1
        status = run.outcome()["status"] or "stopped"
        self._add(run, 1.0, earlier=again or status == "submitted")
        if not again or status != "done":
            self._say(f"{run.name}: {status}")

    def _add(self, run: Run, share: float, earlier: bool) -> None:
        more = share * self._flops[run.name] - self._done[run.name]
        self._done[run.name] += more
        self._before += more if earlier else 0.0
        self._bar.update(
            self._task, completed=sum(self._done.values()), left=self.left(),
            description=f"{self._finished} of {self._runs} runs",
        )  # fmt: skip

    def left(self) -> str:
        """By the pace of this sitting."""
        done, whole = sum(self._done.values()), sum(self._flops.values())
        paced, seconds = done - self._before, time.monotonic() - self._began
        if paced <= 0 or done >= whole:
            return ""
        minutes = (whole - done) / paced * seconds / 60
        return (
            f"about {minutes / 60:.1f} h left"
            if minutes > 90
            else f"about {max(1, minutes):.0f} min left"
        )

    def _say(self, what: str) -> None:
        self._told = time.monotonic()
        left = self.left()
        line = f"[{self._finished}/{self._runs}] {what}" + (f"; {left}" if left else "")
        self._bar.console.print(line, highlight=False, markup=False)
