"""Amounts of bytes as people read them: "2 MiB"."""

from __future__ import annotations


def size_in_words(value: float) -> str:
    """2097152 -> "2 MiB", 1610612736 -> "1.5 GiB"."""
    if abs(value) < 1024:
        return f"{value:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        value /= 1024
        if abs(value) < 1024 or unit == "PiB":
            break
    return f"{value:.0f} {unit}" if unit == "KiB" or value >= 100 or value == int(value) else f"{value:.1f} {unit}"
