"""How a bench says what it found: one JSON object a line on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys


def report(bench: str, metric: str, value: float, unit: str, **params: object) -> None:
    figure = {"bench": bench, "metric": metric, "value": round(value, 3), "unit": unit, "params": params}
    print(json.dumps(figure), flush=True)


def say(words: str) -> None:
    """Progress, for whoever watches."""
    print(words, file=sys.stderr, flush=True)


def load() -> float:
    """How many processes wanted a core in the last minute: with more than a few, times and rates mean little."""
    return round(os.getloadavg()[0], 2)
