"""A share on somebody's file server, as a cluster reaches it: by SMB, with what stands in the URI.

Written with Samba's own client, so that files really go over the wire. `smb://[DOMAIN;]user:password@server/share/path`,
each part percent-encoded (the vendor's Ansible collection, plugins/module_utils/vm.py, and the exporters scale-backup
and "HyperCore Export Manager"). A port is taken too, which an appliance is not known to: a laboratory has no port 445.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lab.errors import WorldError

CALL_S = 120.0
THERE = "NT_STATUS_OBJECT_NAME_COLLISION"
"""What making a folder says of one that is there."""


class ShareFailed(WorldError):
    """The file server said no, or nothing."""


@dataclass(frozen=True, slots=True)
class Share:
    """A folder of a share."""

    host: str
    port: int
    share: str
    folder: str
    """Below the share, with slashes; the last part is what an export makes."""
    user: str
    password: str
    domain: str = ""
    uri: str = ""
    """As it was given. What failed is told with it, password and all: whether appliances do so is not known."""

    def put(self, files: Mapping[str, Path]) -> None:
        """Name -> what becomes of it, in the folder, which is made if it is not there. Raises `ShareFailed`."""
        puts = [f"put {_quoted(str(path))} {_quoted(f'{self.folder}/{name}')}" for name, path in files.items()]
        self._run("; ".join((f"mkdir {_quoted(self.folder)}", *puts)))

    def _run(self, command: str) -> None:
        with tempfile.TemporaryDirectory(prefix="lab-smb-") as folder:
            account = Path(folder) / "account"
            file = os.open(account, os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(file, "w") as text:
                text.write(f"username = {self.user}\npassword = {self.password}\n")
                text.write(f"domain = {self.domain}\n" if self.domain else "")
            try:
                done = subprocess.run(
                    ["smbclient", "--configfile=/dev/null", f"--authentication-file={account}", f"--port={self.port}",
                     f"//{self.host}/{self.share}", f"--command={command}"],
                    stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=CALL_S,
                )  # fmt: skip
            except OSError as error:
                raise ShareFailed("Cannot start smbclient. Install the package smbclient.") from error
            except subprocess.TimeoutExpired as error:
                raise ShareFailed(f"Unable to access {self.uri}: NT_STATUS_IO_TIMEOUT") from error
        said = [line for line in (done.stdout + done.stderr).splitlines() if "NT_STATUS_" in line]
        said = [line for line in said if THERE not in line]
        if said:
            words = said[0].split("NT_STATUS_")[-1].split()[0].rstrip(".)")
            raise ShareFailed(f"Unable to access {self.uri}: NT_STATUS_{words}")
        if done.returncode != 0 and THERE not in done.stdout + done.stderr:
            raise ShareFailed(f"Unable to access {self.uri}: exit {done.returncode}")


def share_of(uri: str) -> Share:
    """Raises `ValueError` for what is no such URI."""
    parts = urlsplit(uri)
    path = [unquote(part) for part in parts.path.split("/") if part]
    if parts.scheme != "smb" or not parts.hostname or len(path) < 2:
        raise ValueError("Invalid pathURI")
    domain, _, user = unquote(parts.username or "").rpartition(";")
    folder, password = "/".join(path[1:]), unquote(parts.password or "")
    return Share(parts.hostname, parts.port or 445, path[0], folder, user, password, domain, uri)


def _quoted(path: str) -> str:
    if '"' in path or "\n" in path:
        raise ShareFailed(f"Unable to access {path!r}: NT_STATUS_OBJECT_NAME_INVALID")
    return f'"{path}"'
