"""How fast steps are, and how much of the time steps are what is done."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Array, Float

from bert_jax.training.flops import peak_flops

# What is done beside steps: before the first one, the first of each shape with its compilation,
# the rest as the words say.
ASIDE = ("start", "compile", "evaluation", "saving")
# The metrics that are times or rates, so never the same twice.
MEASURED = ("tokens_per_second", "mfu", "loader_wait", "goodput")


class Rates:
    """Of steps between two moments, and of all that this process did since it began."""

    def __init__(self, began: float):
        """`began`: by time.monotonic()."""
        self._peak = peak_flops()
        self._began, self._waited = began, 0.0
        self._all_steps, self._all_seconds = 0, 0.0
        self._aside = dict.fromkeys(ASIDE, 0.0)
        self._restart()
        self._aside["start"] = self._begin - began

    def _restart(self) -> None:
        self._begin, self._steps, self._flops = time.monotonic(), 0, 0
        self._tokens: Any = 0.0

    @contextmanager
    def aside(self, what: str) -> Iterator[None]:
        """What is done in here is one of ASIDE, and no part of the steps' time. Steps that were
        sent off before have to be done."""
        begin = time.monotonic()
        yield
        seconds = time.monotonic() - begin
        self._aside[what] += seconds
        self._begin += seconds

    def add(self, real_tokens: Float[Array, ""], flops: int) -> None:
        """A step of so many tokens and so much arithmetic."""
        self._steps, self._flops = self._steps + 1, self._flops + flops
        self._tokens = self._tokens + real_tokens  # on the device: nothing waits for it

    def take(self, waited: float) -> dict[str, Any]:
        """Since the last time: tokens_per_second (padding not counted), mfu (`model` convention
        of flops.py; None on a device of unknown peak), loader_wait (share of the time). None
        after no step at all. Since the beginning: goodput, as `shares` has it."""
        seconds = time.monotonic() - self._begin
        steps, tokens, flops = self._steps, self._tokens, self._flops
        self._waited += waited
        self._all_steps, self._all_seconds = self._all_steps + steps, self._all_seconds + seconds
        self._restart()
        goodput = {"goodput": self.shares()["steps"]}
        if not steps:
            return {"tokens_per_second": None, "mfu": None, "loader_wait": None} | goodput
        mfu = self._peak and flops / seconds / self._peak
        return {
            "tokens_per_second": tokens / seconds,
            "mfu": mfu,
            "loader_wait": min(waited / seconds, 1.0),
        } | goodput

    def totals(self) -> tuple[float, int, float]:
        """Seconds since this process began; the steps that were timed, and their seconds."""
        return time.monotonic() - self._began, self._all_steps, self._all_seconds

    def shares(self) -> dict[str, float]:
        """Of the time since this process began: `steps`, the ASIDE, and `waiting` for data."""
        whole = time.monotonic() - self._began
        others = self._aside | {"waiting": self._waited}
        steps = max(whole - sum(others.values()), 0.0)
        return {name: part / whole for name, part in ({"steps": steps} | others).items()}
