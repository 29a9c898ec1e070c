"""An ordinary account: no rights, a home and a checkout of its own, on a machine whose own libvirt it may not use.

What it starts, a libvirt daemon and guests included, dies with the test run, even by SIGKILL: see account.sh. No
package index is asked: its environment sees the packages of the one that the tests run in.
"""

from __future__ import annotations

import re
import shutil
import socket
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.prerequisites import REPOSITORY, require_program
from tests.support.process import die_with_us
from tests.support.scratch import scratch_directory

INSIDE = Path("/mnt")
"""Where the account finds its folder."""
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "var", "tests")
HYPERVISOR_PACKAGES = {
    "qemu-system-x86": "qemu-system-x86_64",
    "libvirt-daemon-system": "libvirtd",
    "libvirt-clients": "virsh",
}
"""Debian's package -> the program without which this account cannot have a libvirt of its own."""


class Account:
    """`launch` is a `Launcher`: it runs programs as this account, in its checkout."""

    def __init__(self, folder: Path, first_process: int) -> None:
        self.folder = folder
        self._first_process = first_process

    @property
    def libvirt_uri(self) -> str:
        """Its own daemon, as seen by the tests."""
        return f"qemu+unix:///session?socket={self._libvirt_socket}"

    def libvirt_pid(self) -> int:
        """Of its own daemon, as seen from outside."""
        with socket.socket(socket.AF_UNIX) as ours:
            ours.connect(str(self._libvirt_socket))
            answer = ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid: int = struct.unpack("3i", answer)[0]
        assert Path(f"/proc/{pid}/comm").read_text() == "libvirtd\n"
        return pid

    @property
    def _libvirt_socket(self) -> Path:
        return self.folder / "run" / "libvirt" / "libvirt-sock"

    def launch(self, command: str, variables: Mapping[str, str]) -> list[str]:
        # --no-fork: the program is the process that the tests signal and wait for; what it starts is inside.
        enter = ["nsenter", "--target", str(self._first_process), "--mount", "--pid", "--no-fork", "--"]
        become = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--"]
        known = {
            "HOME": f"{INSIDE}/home",
            "XDG_RUNTIME_DIR": f"{INSIDE}/run",
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PIP_NO_INDEX": "1",
            **variables,
        }
        settings = [f"{name}={value}" for name, value in known.items()]
        # In this order: the kernel forgets whom to die with when a process changes its user.
        program = die_with_us("env", "-i", f"--chdir={INSIDE}/deskyard", *settings, *command.split())
        return [*enter, *become, *program]


@contextmanager
def home_of_an_account(tiny_image: Path) -> Iterator[Path]:
    """A folder with a checkout, an environment and the built image, all the account's own."""
    with scratch_directory("account") as folder:
        checkout = folder / "deskyard"
        shutil.copytree(REPOSITORY, checkout, ignore=NOT_COPIED)
        # Built here it would be fetched anew.
        shutil.copytree(tiny_image, checkout / "var" / "images" / "tiny")
        _make_environment(checkout / ".venv")
        for name in ("home", "run", "packages"):
            (folder / name).mkdir(mode=0o700)
        (folder / "dpkg-status").write_text(_status_without(HYPERVISOR_PACKAGES))
        subprocess.run(["chown", "-R", "nobody:nogroup", *folder.glob("[!o]*")], check=True)
        yield folder


@contextmanager
def account(folder: Path, *, without: Sequence[str] = ()) -> Iterator[Account]:
    """The account while the block lasts. `without` are programs that the machine lacks, and then also lacks all
    `HYPERVISOR_PACKAGES`."""
    hidden = [str(require_program(name, "?")) for name in without]
    namespaces = ["--mount", "--pid", "--mount-proc", "--propagation", "private", "--fork", "--kill-child=KILL"]
    script = REPOSITORY / "tests" / "deploy" / "account.sh"
    packages = sysconfig.get_path("purelib")
    command = die_with_us(require_program("unshare", "util-linux"), *namespaces, script, folder, packages, *hidden)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as outer:
        try:
            assert outer.stdout is not None
            assert outer.stdout.readline() == b"up\n"
            (first,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
            yield Account(folder, int(first))
        finally:
            outer.kill()


def _make_environment(venv: Path) -> None:
    """An environment without packages of its own; pip finds that the borrowed ones are what is wanted."""
    subprocess.run([Path(sys.base_prefix) / "bin" / "python3", "-m", "venv", "--without-pip", venv], check=True)
    (site,) = venv.glob("lib/python3.*/site-packages")
    (site / "borrowed.pth").write_text(f"import site; site.addsitedir('{INSIDE}/packages')\n")


def _status_without(packages: Mapping[str, str]) -> str:
    """dpkg's list of what is installed, less these."""
    stanzas = Path("/var/lib/dpkg/status").read_text(encoding="utf-8").split("\n\n")
    lacking = re.compile(rf"^Package: ({'|'.join(map(re.escape, packages))})$", re.MULTILINE)
    return "\n\n".join(stanza for stanza in stanzas if not lacking.search(stanza))
