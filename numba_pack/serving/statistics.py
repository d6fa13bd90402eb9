"""What a batcher counts: requests by how they ended, chunks by their rows, and how long the last requests took."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["Statistics"]

#: requests over which percentiles are taken: 99 % of them leave 40 above
RECENT = 4096


class Statistics:
    """Sums since the beginning, and the times of recent requests. It is not locked."""

    def __init__(self, rows: int) -> None:
        #: the most rows of a chunk
        self._most_rows = rows
        #: requests that came, and how they ended
        self.counts = dict.fromkeys(("submitted", "answered", "failed", "cancelled", "expired", "refused"), 0)
        self._chunks = self._rows = self._requests = 0
        self._waits: deque[float] = deque(maxlen=RECENT)
        self._answers: deque[float] = deque(maxlen=RECENT)

    def chunk(
        self, requests: int, rows: int, seconds: float, waits: list[float], answers: list[float]
    ) -> dict[str, Any]:
        """Count a chunk; what is to be said about it."""
        self._chunks += 1
        self._rows += rows
        self._requests += requests
        self._waits.extend(waits)
        self._answers.extend(answers)
        return {
            "requests": requests,
            "rows": rows,
            "occupancy": rows / self._most_rows,
            "seconds": seconds,
            "waits": waits,
            "answers": answers,
        }

    def all(self) -> dict[str, Any]:
        """Everything, as a plain dict."""
        return {
            **self.counts,
            "chunks": self._chunks,
            "rows": self._rows,
            "requests_per_chunk": self._requests / max(self._chunks, 1),
            "occupancy": self._rows / (self._most_rows * max(self._chunks, 1)),
            "wait": _percentiles(self._waits),
            "answer": _percentiles(self._answers),
        }


def _percentiles(seconds: Iterable[float]) -> dict[str, float] | None:
    """Seconds that 50, 90 and 99 of 100 requests stay below; None if there was none."""
    values = np.fromiter(seconds, float)
    if not len(values):
        return None
    return {f"p{percent}": float(np.percentile(values, percent)) for percent in (50, 90, 99)}
