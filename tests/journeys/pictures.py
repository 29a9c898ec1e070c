"""Comparing what a browser shows with what the hypervisor shows."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy
from numpy.typing import NDArray
from PIL import Image

from tests.support.stack import wait_until

CURSOR = 9 * 16
"""Pixels of one character cell in text mode: the cursor blinks, so two pictures may differ in it."""
SHADE = 8
"""A difference of a colour channel, of 255, that nobody sees."""


def pixels(png: bytes) -> NDArray[numpy.int16]:
    """Height x width x RGB."""
    with Image.open(io.BytesIO(png)) as picture:
        return numpy.asarray(picture.convert("RGB")).astype(numpy.int16)


def difference(one: bytes, other: bytes) -> int:
    """How many pixels visibly differ. Raises AssertionError for pictures of different sizes."""
    left, right = pixels(one), pixels(other)
    assert left.shape == right.shape, f"{left.shape} and {right.shape}"
    return int((numpy.abs(left - right).max(axis=2) > SHADE).sum())


def lit(png: bytes) -> int:
    """How many pixels are not black."""
    return int((pixels(png).max(axis=2) > SHADE).sum())


def wait_until_same(mine: Callable[[], bytes], theirs: Callable[[], bytes], limit_s: float = 60) -> bytes:
    """Returns the picture once both show the same but for the blinking cursor. An update may be on its way at first."""
    seen = [b""]

    def is_same() -> bool:
        seen[0] = mine()
        return pixels(seen[0]).shape == pixels(theirs()).shape and difference(seen[0], theirs()) <= CURSOR

    wait_until(is_same, limit_s, "browser and hypervisor show the same picture")
    return seen[0]


def wait_until_still(mine: Callable[[], bytes], limit_s: float = 60, still_s: float = 1.5) -> None:
    """Returns once the picture has not changed for a while, but for the blinking cursor."""
    last: tuple[bytes, float] = (mine(), time.monotonic())

    def is_still() -> bool:
        nonlocal last
        now = mine()
        if difference(now, last[0]) > CURSOR:
            last = (now, time.monotonic())
        return time.monotonic() - last[1] > still_s

    wait_until(is_still, limit_s, "the screen stands still")
