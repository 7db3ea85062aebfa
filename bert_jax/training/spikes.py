"""Losses that stand out from those logged before them."""

import statistics
from collections import deque
from collections.abc import Mapping

_BEFORE = 50  # logged losses that one is compared with
_LEAST = 10
_DEVIATIONS = 8.0


class LossSpikes:
    """Fed with every record of the metrics in turn; `found` is the steps that stood out, with
    their loss and the median of those before.

    A spike is 8 deviations above that median, in deviations that outliers do not stretch: 1.4826
    times the median distance from the median, that of a normal distribution.
    """

    def __init__(self):
        self.found: list[tuple[int, float, float]] = []
        self._before: deque[float] = deque(maxlen=_BEFORE)

    def add(self, step: int, record: Mapping[str, float | None]) -> str:
        """A note where the loss is a spike, else ''."""
        note, loss = "", record.get("loss")
        if loss is None:  # it was not finite, and its step was skipped
            return note
        if len(self._before) >= _LEAST:
            middle = statistics.median(self._before)
            spread = 1.4826 * statistics.median(abs(one - middle) for one in self._before)
            if loss > middle + _DEVIATIONS * max(spread, 1e-6):
                self.found.append((step, loss, middle))
                note = (
                    f"step {step}: loss {loss:.4f} is a spike, {loss - middle:.4f} above the "
                    f"median of the {len(self._before)} logged before"
                )
        self._before.append(loss)
        return note
