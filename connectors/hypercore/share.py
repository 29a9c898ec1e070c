"""The share on which HyperCore leaves its exports, read and tidied by SMB.

The password goes to the file server, and into the address that HyperCore is given (`address`): never into a message, a
name of a file or a representation. Connections are an object's own. Movers alone come here, so the library is loaded
when it is first used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, Protocol
from urllib.parse import quote
from uuid import uuid4

from connectors.errors import CapacityExhausted, ConnectorError, NotFound, Unreachable, Unsupported
from connectors.hypercore.settings import SMB_PORT, HyperCoreSettings, Place

CONNECT_S = 10
ANSWER_S = 30.0
"""A file server that takes longer for an answer is taken for one that hangs."""
FAREWELL_S = 2.0

ACCOUNT = frozenset({0xC000006D, 0xC000006A, 0xC0000071, 0xC0000072, 0xC0000234, 0xC0000193, 0xC000015B, 0xC0000064})
"""STATUS_LOGON_FAILURE, WRONG_PASSWORD, PASSWORD_EXPIRED, ACCOUNT_DISABLED, ACCOUNT_LOCKED_OUT, ACCOUNT_EXPIRED,
LOGON_TYPE_NOT_GRANTED, NO_SUCH_USER ([MS-ERREF] 2.3.1)."""
RIGHTS = frozenset({0xC0000022, 0xC00000A2})
"""STATUS_ACCESS_DENIED, MEDIA_WRITE_PROTECTED."""
NOWHERE = frozenset({0xC00000CC, 0xC0000225})
"""STATUS_BAD_NETWORK_NAME: no such share; NOT_FOUND, which the library then gets from looking for it by DFS."""
MISSING = frozenset({0xC0000034, 0xC000003A, 0xC000000F})
"""STATUS_OBJECT_NAME_NOT_FOUND, OBJECT_PATH_NOT_FOUND, NO_SUCH_FILE."""
FULL = frozenset({0xC000007F, 0xC0000044})
"""STATUS_DISK_FULL, QUOTA_EXCEEDED."""


class Remote(Protocol):
    """A file on the share, open for reading."""

    @property
    def size(self) -> int: ...

    def read(self, length: int) -> bytes:
        """The next bytes; none at its end. Raises as the share does."""

    def close(self) -> None: ...


class Share:
    """See the module. Not safe among threads."""

    def __init__(self, settings: HyperCoreSettings) -> None:
        """Raises `Unsupported` if none is set."""
        if settings.place is None:
            raise Unsupported(
                f"Machines of {settings.endpoint} cannot be replicated yet: HyperCore gives disks as files on an SMB "
                "share alone. Give one in the hypervisor's settings: Share for exports, with its user and password."
            )
        self.place: Place = settings.place
        self._user = settings.share_user
        self._password = settings.share_password
        self._cache: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Share {self.place}>"

    def address(self, folder: str) -> str:
        """What HyperCore takes for a folder of the share (`pathURI`). Holds the password."""
        domain, _, user = self._user.replace("/", "\\").rpartition("\\")
        who = (quote(domain, safe="") + ";" if domain else "") + quote(user, safe="")
        host = f"[{self.place.host}]" if ":" in self.place.host else self.place.host
        port = f":{self.place.port}" if self.place.port != SMB_PORT else ""
        path = "/".join(quote(part, safe="") for part in (self.place.share, *self.place.folders, folder))
        return f"smb://{who}:{quote(self._password, safe='')}@{host}{port}/{path}"

    def folders(self, prefix: str) -> list[str]:
        """Names of folders in the share's folder that begin so."""
        try:
            with (
                self._asking("looking at it") as smb,
                closing(smb.scandir(self._path(), search_pattern=f"{prefix}*", **self._how)) as entries,
            ):
                return sorted(entry.name for entry in entries if entry.is_dir() and entry.name.startswith(prefix))
        except NotFound as error:
            raise Unsupported(f"There is no folder {self.place}. Make it, or give another one.") from error

    def remove(self, folder: str) -> None:
        """With what is in it, and what is in folders below. One that is gone is success."""
        with suppress(NotFound), self._asking(f"removing {folder}") as smb:
            self._remove(smb, self._path(folder))

    def _remove(self, smb: Any, path: str) -> None:
        with closing(smb.scandir(path, **self._how)) as found:
            entries = [(entry.name, entry.is_dir() and not entry.is_symlink()) for entry in found]
        for name, is_folder in entries:
            inner = f"{path}\\{name}"
            if is_folder:
                self._remove(smb, inner)
            else:
                smb.remove(inner, **self._how)
        smb.rmdir(path, **self._how)

    def read(self, folder: str, name: str, at_most: int) -> bytes:
        """A small file, or its beginning. Raises `NotFound`."""
        remote = self.open(folder, name)
        try:
            parts = bytearray()
            while len(parts) < at_most and (part := remote.read(at_most - len(parts))):
                parts += part
            return bytes(parts)
        finally:
            remote.close()

    def open(self, folder: str, name: str) -> Remote:
        """Raises `NotFound`."""
        with self._asking(f"opening {name}") as smb:
            path = self._path(folder, name)
            file = smb.open_file(path, mode="rb", buffering=0, share_access="r", **self._how)
            return _RemoteFile(file, lambda: self._asking(f"reading {name}"))

    def close(self) -> None:
        """Idempotent; never raises."""
        cache, self._cache = self._cache, {}
        if cache:
            with suppress(Exception):
                for connection in cache.values():
                    connection.answers_in_s = FAREWELL_S
                _smb().reset_connection_cache(fail_on_error=False, connection_cache=cache)

    def _drop(self) -> None:
        """Without a farewell, which nobody would answer."""
        cache, self._cache = self._cache, {}
        for connection in cache.values():
            with suppress(Exception):
                connection.disconnect(close=False)

    # --- the wire ---

    @property
    def _how(self) -> dict[str, Any]:
        return {
            "username": self._user,
            "password": self._password,
            "port": self.place.port,
            "connection_cache": self._cache,
            "connection_timeout": CONNECT_S,
        }

    def _path(self, *parts: str) -> str:
        return "\\\\" + "\\".join((self.place.host, self.place.share, *self.place.folders, *parts))

    @contextmanager
    def _asking(self, doing: str) -> Iterator[Any]:
        """The library, signed in. Raises `Unreachable`, `Unsupported`, `NotFound`, `CapacityExhausted`."""
        smb = _smb()
        try:
            self._connect()
            smb.register_session(self.place.host, **self._how)
            yield smb
        except ConnectorError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the library raises, it is the share's
            problem = self._problem(error, doing)
            if isinstance(problem, Unreachable):
                self._drop()
            raise problem from None

    def _connect(self) -> None:
        """The library waits for an answer without an end unless it is told how long, which its own calls for files do
        not pass on: so the connection is made here."""
        from smbprotocol.connection import Connection

        key = f"{self.place.host.lower()}:{self.place.port}"
        there = self._cache.get(key)
        if there is not None and there.transport.connected:
            return
        connection: Any = Connection(uuid4(), self.place.host, self.place.port, require_signing=True)
        connection.connect(timeout=CONNECT_S)
        receive, connection.answers_in_s = connection.receive, ANSWER_S

        def in_time(
            request: Any, wait: bool = True, timeout: float | None = None, resolve_symlinks: bool = True
        ) -> Any:
            return receive(request, wait, connection.answers_in_s if timeout is None else timeout, resolve_symlinks)

        connection.receive = in_time
        self._cache[key] = connection

    def _problem(self, error: Exception, doing: str) -> ConnectorError:
        """The library raises its own errors, OSError, and ValueError where no connection could be made."""
        status = int(getattr(error, "ntstatus", 0) or getattr(error, "status", 0) or 0) & 0xFFFFFFFF
        words = f"{type(error).__name__} {status:#x}" if status else type(error).__name__
        table: tuple[tuple[bool, type[ConnectorError], str], ...] = (
            (status in ACCOUNT or type(error).__name__ in ("SMBAuthenticationError", "LogonFailure"), Unsupported,
             f"user {self._user!r} is refused. Check the share's user and password in the settings."),
            (status in RIGHTS, Unsupported, f"user {self._user!r} has not the right. Let it write there."),
            (status in NOWHERE, Unsupported, "there is no such share. Check its name in the settings."),
            (status in MISSING, NotFound, "it is not there."),
            (status in FULL, CapacityExhausted, "there is no room. Make room on it."),
        )  # fmt: skip
        kind, advice = next(
            ((kind, advice) for fits, kind, advice in table if fits),
            (Unreachable, "it does not answer. Check the file server."),
        )
        return kind(f"Share {self.place}: {doing} failed, {advice}", platform_words=words)


class _RemoteFile:
    def __init__(self, file: Any, asking: Callable[[], Any]) -> None:
        self._file = file
        self._asking = asking
        with asking():
            self.size: int = file.seek(0, 2)
            file.seek(0)

    def read(self, length: int) -> bytes:
        with self._asking():
            return bytes(self._file.read(length))

    def close(self) -> None:
        try:
            self._file.close()
        except Exception:  # noqa: BLE001 - whatever the library raises: the server has gone, and the handle with it
            self._file.fd._connected = False  # else it complains later that nobody closed it


def _smb() -> Any:
    """Raises `Unsupported`."""
    try:
        import smbclient
    except ImportError as error:
        raise Unsupported("Shares cannot be read here: install smbprotocol, which requirements.txt names.") from error
    # It has a line for every piece that is read, and dumps of every message below that.
    logging.getLogger("smbprotocol").setLevel(logging.WARNING)
    return smbclient
