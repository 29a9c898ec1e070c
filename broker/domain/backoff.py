"""How long to wait after failures: twice as long each time, up to a cap, spread so that not all come back at once."""

from __future__ import annotations

from hashlib import blake2b

JITTER = 0.25
"""The greatest share by which a delay is shortened."""


def delay_s(failures: int, key: str = "", *, base_s: float = 1.0, cap_s: float = 300.0) -> float:
    """Seconds to wait after so many failures in a row; 0 after none.

    The jitter comes from `key` and the number of failures, so that the same row waits equally long whoever asks.
    """
    if failures <= 0:
        return 0.0
    # 2 ** 64 seconds is beyond every cap, and a float stays finite.
    longest = min(base_s * 2.0 ** min(failures - 1, 64), cap_s)
    digest = blake2b(f"{key}:{failures}".encode(), digest_size=4).digest()
    return longest * (1 - JITTER * int.from_bytes(digest) / 2**32)
