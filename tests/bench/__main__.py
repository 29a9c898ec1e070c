"""`python -m tests.bench [--counts] [NAME]`: every bench in a process of its own, or the named one in this process.

`--counts` leaves out what needs time and takes smaller estates: what the tests pin.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

from tests.bench.ground import broker_ready
from tests.support.prerequisites import MissingPrerequisite

BENCHES = {
    "claim": "claim",
    "portal": "portal",
    "lists": "lists",
    "fill": "fill",
    "inflight": "inflight",
    "relay": "relay",
    "inventory": "inventory",
    "estate": "makers",
    "hyperv_starts": "hyperv_starts",
    "copy": "copying",
    "landing": "landing",
    "incremental": "incremental",
    "policies": "policies",
}
"""Name -> module."""


def main(arguments: list[str]) -> int:
    is_small = "--counts" in arguments
    names = [argument for argument in arguments if argument != "--counts"]
    if unknown := [name for name in names if name not in BENCHES]:
        print(f"There is no bench {unknown[0]!r}. There are: {', '.join(BENCHES)}.", file=sys.stderr)
        return 2
    if len(names) == 1:
        with broker_ready(is_small=is_small) as ground:
            import_module(f"tests.bench.{BENCHES[names[0]]}").run(ground)
        return 0
    # Each has its own database and caches, and one that fails does not keep the others from being measured.
    ended = [subprocess.run([sys.executable, "-m", "tests.bench", name], check=False).returncode for name in BENCHES]
    return max(ended)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except MissingPrerequisite as missing:
        sys.exit(str(missing))
