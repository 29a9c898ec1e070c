"""Accounts of the lab's Windows hosts, and the acceptor side of NTLM and SPNEGO (pyspnego).

pyspnego's acceptor takes its users from the file that the environment variable NTLM_USER_FILE names. That variable is
the process's, so all servers of a process share one file, in which an account's domain and name are unique.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import spnego
from spnego.channel_bindings import GssChannelBindings


@dataclass(frozen=True, slots=True)
class Account:
    domain: str
    user: str
    password: str = field(repr=False)
    is_admin: bool = True
    """In the hosts' group Administrators."""

    @property
    def principal(self) -> str:
        return f"{self.domain}\\{self.user}".lower()


class _File:
    """The users of all servers of this process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._known: dict[str, Account] = {}
        self._folder: Path | None = None

    def add(self, account: Account) -> None:
        with self._guard:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="lab-ntlm-"))
                atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
            self._known[account.principal] = account
            fresh = self._folder / "users.new"
            lines = (f"{it.domain}:{it.user}:{it.password}\n" for it in self._known.values())
            fresh.write_text("".join(lines))
            os.replace(fresh, self._folder / "users")
            os.environ["NTLM_USER_FILE"] = str(self._folder / "users")


_FILE = _File()


def admit(account: Account) -> None:
    """From now on this account can sign in, with this password."""
    _FILE.add(account)


def acceptor(token: bytes, certificate_sha256: str) -> spnego.ContextProxy:
    """Takes the first token of a sign-in. Over TLS the client must have seen our own certificate (channel binding)."""
    bindings = None
    if certificate_sha256:
        bindings = GssChannelBindings(application_data=b"tls-server-end-point:" + bytes.fromhex(certificate_sha256))
    protocol = "ntlm" if token.startswith(b"NTLMSSP\0") else "negotiate"
    options = spnego.NegotiateOptions.use_ntlm
    if protocol == "negotiate":
        options |= spnego.NegotiateOptions.use_negotiate
    return spnego.server(
        protocol=protocol,
        options=options,
        context_req=spnego.ContextReq.integrity | spnego.ContextReq.confidentiality,
        channel_bindings=bindings,
    )
