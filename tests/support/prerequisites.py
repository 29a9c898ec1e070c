"""What the tests need of the machine, and how they say that it is missing: always an error, never a skip."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class MissingPrerequisite(Exception):
    """The machine lacks something; the message says what, and that `make test` (as root) sets it up."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}. `make test`, as root, installs and starts all that the tests need.")


def require_root(purpose: str) -> None:
    """Raises MissingPrerequisite for an ordinary user."""
    if os.geteuid() != 0:
        raise MissingPrerequisite(f"{purpose} needs root, and this is user id {os.geteuid()}")


def require_program(name: str, package: str, *also_in: Path) -> Path:
    """The program's path; sbin folders are searched too. Raises MissingPrerequisite naming the Debian package."""
    folders = [*(str(folder) for folder in also_in), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise MissingPrerequisite(f"Program {name} is missing (Debian package {package})")
    return Path(found)


def prepare(what: str, *command: str | Path) -> None:
    """Run a script that builds or starts what the tests need. Raises MissingPrerequisite with its last words."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingPrerequisite(f"Cannot prepare {what}: {done.stderr.strip()[-1000:]}")


def tiny_guest() -> Path:
    """Folder with the tiny guest's vmlinuz, initrd.gz, golden.qcow2; built once for all checkouts, about 10 s."""
    require_program("qemu-img", "qemu-utils")
    folder = Path(os.environ.get("DESKYARD_CACHE", "/var/cache/deskyard")) / "tiny"
    prepare("the tiny guest", REPOSITORY / "deploy" / "images" / "build-tiny.sh", folder)
    return folder


def free_port() -> int:
    """A loopback TCP port that was free a moment ago; whoever takes it must cope with losing it to another process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
