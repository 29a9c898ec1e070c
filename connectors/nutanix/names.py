"""What temporary things of replication are called on Prism: by their names they are found again, whoever lost them."""

from __future__ import annotations

import re
from hashlib import sha256

_STAND_IN = re.compile(r"dsky-point\.[^.]+\.[0-9a-f]{16}\..+")


def point_prefix(installation: str, machine: str) -> str:
    """Of all that points of this machine leave, as far as it is this installation's."""
    return f"dsky-point.{machine}.{_tag(installation)}."


def landing_prefix(installation: str, key: str) -> str:
    """Of all that a landing under this key leaves but the machine itself."""
    return f"dsky-landing.{key}.{_tag(installation)}."


def is_stand_in(name: str) -> bool:
    """Whether a machine of this name only stands for another one while that one's disks are read."""
    return _STAND_IN.fullmatch(name) is not None


def _tag(installation: str) -> str:
    """Names of machines have 80 characters, and others' prefixes must never begin like ours."""
    return sha256(installation.encode()).hexdigest()[:16]
