"""The wire: one host's WinRM, spoken by pywinrm's `Protocol`. Runs our fixed scripts, never text made of values.

A script and its parameters travel as ASCII JSON on the standard input of one PowerShell, whose command line is always
the same; its answer is one JSON document between `<<J ` and ` J>>` on standard output, whatever else is printed.
Standard error decides nothing: progress is written there too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from winrm.exceptions import InvalidCredentialsError, WinRMOperationTimeoutError, WSManFaultError
from winrm.protocol import Protocol
from winrm.transport import Transport

from connectors.errors import Busy, ConnectorError, CredentialsRejected, PlatformFault, Unreachable
from connectors.hyperv import faults
from connectors.hyperv.settings import HypervSettings

T = TypeVar("T")

SCRIPTS = Path(__file__).parent / "scripts"
_PART = re.compile(r"^# deskyard-part: (\w+)\n", re.MULTILINE)
VERSION = 1
"""Of what scripts and connector say to each other."""

CONNECT_S = 5.0
OPERATION_S = 20
"""Longest wait of one Receive; WinRM answers "timed out" then, and it is asked again."""
SHELL_COMMANDS, SHELL_AGE_S = 100, 600.0
"""Windows never gives back a shell's operations ([MS-WSMV] note 118), so a shell is left after so many commands."""
PIECE = 60_000
"""Bytes of standard input a message: with base64 and sealing it stays below MaxEnvelopeSize."""
LARGEST_ANSWER = 64 * 1024 * 1024
REFUSED_S = 60.0
"""A refused password is not tried again for so long, whoever asks."""
CLEANING_S = 3.0
"""How long ending a command or shell may take beyond the deadline of what it was for."""


def script(name: str) -> str:
    """The text of one of our scripts, with what it shares with others in place of the lines that name it."""

    def part(found: re.Match[str]) -> str:
        return (SCRIPTS / "parts" / f"{found[1]}.ps1").read_text(encoding="ascii")

    return _PART.sub(part, (SCRIPTS / f"{name}.ps1").read_text(encoding="ascii"))


def encoded(text: str) -> str:
    """As PowerShell's -EncodedCommand takes it."""
    return base64.b64encode(text.encode("utf-16-le")).decode("ascii")


COMMAND = (
    *("-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-EncodedCommand"),
    encoded(script("bootstrap")),
)


class Account:
    """Whether user and password have been taken by any of the hosts.

    Until they have been, one host at a time is tried, and none after a refusal: a wrong password must cost one attempt,
    not one a node, or the account is locked out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.is_good = False
        self._refusal: CredentialsRejected | None = None
        self._refused_at = 0.0

    @contextmanager
    def trying(self, deadline: float, host: str) -> Iterator[None]:
        if self.is_good:
            yield
            return
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Unreachable(f"Host {host}: signing in waited for another host until time ran out.")
        try:
            if self._refusal is not None and time.monotonic() < self._refused_at + REFUSED_S:
                raise CredentialsRejected(self._refusal.message, platform_words=self._refusal.platform_words)
            yield
            self.is_good = True
        finally:
            self._lock.release()

    def refused(self, error: CredentialsRejected) -> None:
        self.is_good, self._refusal, self._refused_at = False, error, time.monotonic()


class Line:
    """One host. Calls take turns; each keeps its deadline as far as sockets go, so it belongs in a thread that may be
    left behind."""

    def __init__(self, settings: HypervSettings, address: str, account: Account, workdir: Path) -> None:
        self.address = address
        self._settings = settings
        self._account = account
        self._workdir = workdir
        self._turn = threading.Lock()
        self._protocol: Protocol | None = None
        self._ca: Path | None = None
        self._shell = ""
        self._shell_used = 0
        self._shell_opened = 0.0
        self._has_answered = False
        self._is_fair = True
        """Whether the host may be expected to say something, if only "timed out", before we hang up."""
        self._heard_at = 0.0
        self._operation_s = 0
        self.has_signed_in = threading.Event()
        """Set once this host has taken a message of ours."""

    def __repr__(self) -> str:
        return f"<Line {self.address}>"

    @property
    def is_silent(self) -> bool:
        """Whether the host has not even said "timed out" when it was time to."""
        return time.monotonic() > self._heard_at + self._operation_s + 1

    def late(self) -> ConnectorError:
        """What to say of a call that is not back by its deadline: the host is slow, or is not there."""
        if self._has_answered and not self.is_silent:
            return self._is_late()
        return Unreachable(f"Host {self.address} did not answer in time. {faults.ADVICE[Unreachable]}")

    def run(self, name: str, parameters: Mapping[str, object], deadline: float) -> Mapping[str, Any]:
        """What the script returned. Raises ConnectorError; Busy if the host answers but did not finish in time."""
        if not self._turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Busy(f"Host {self.address}: an earlier call has not come back. It will be tried again.")
        try:
            with self._account.trying(deadline, self.address):
                self._require_shell(deadline)
            output = self._execute(_stdin(name, parameters), deadline)
        except ConnectorError:
            raise
        except Exception as error:  # noqa: BLE001 - pywinrm, requests, urllib3, ssl and expat each have their own
            self._forget_session()
            problem = faults.of_wire(error, "talking to WinRM", self.address)
            if isinstance(problem, CredentialsRejected):
                self._account.refused(problem)
            raise problem from None
        finally:
            self._turn.release()
        return self._read(output)

    def close(self) -> None:
        """Idempotent; never raises and waits for nobody: a shell left behind ends by its own idle time."""
        if self._turn.acquire(blocking=False):
            try:
                with suppress(Exception):
                    self._drop_shell()
                self._forget_session()
            finally:
                self._turn.release()
        ca, self._ca = self._ca, None
        if ca is not None:
            with suppress(OSError):
                ca.unlink()

    # --- a command ---

    def _execute(self, stdin: bytes, deadline: float) -> bytes:
        """Standard output of one PowerShell. At the deadline it is ended, and Busy raised."""
        command = self._begin_command(deadline)
        is_over = False
        output = bytearray()
        try:
            for start in range(0, len(stdin), PIECE):
                piece = stdin[start : start + PIECE]
                is_last = start + PIECE >= len(stdin)
                self._send(command, piece, deadline, end=is_last)
            while not is_over:
                with suppress(WinRMOperationTimeoutError):
                    out, is_over = self._receive(command, deadline)
                    output += out
                if len(output) > LARGEST_ANSWER:
                    raise PlatformFault(
                        f"Host {self.address}: a script's answer has no end. See what its profile prints."
                    )
        except WSManFaultError as error:
            if error.wsman_fault_code == faults.SHELL_GONE:
                self._shell = ""
            raise
        finally:
            if not is_over or self._shell:
                self._end_command(command, is_over=is_over)
        return bytes(output)

    def _send(self, command: str, piece: bytes, deadline: float, *, end: bool) -> None:
        self._resealed(
            lambda: self._within(deadline).send_command_input(self._shell, command, piece, end=end),
        )

    def _receive(self, command: str, deadline: float) -> tuple[bytes, bool]:
        """What has come out since, and whether the command is over."""
        try:
            out, _, _, is_over = self._resealed(
                lambda: self._within(deadline).get_command_output_raw(self._shell, command),
            )
        except requests.exceptions.ReadTimeout:
            if self._is_fair:
                raise
            raise self._is_late() from None
        return out, is_over

    def _begin_command(self, deadline: float) -> str:
        """A PowerShell that waits for its input. A shell that has gone, or is used up, is replaced once."""
        for is_last in (False, True):
            try:
                return self._start_powershell(deadline)
            except WSManFaultError as error:
                if is_last or error.wsman_fault_code not in (faults.SHELL_GONE, faults.OPERATIONS_SPENT):
                    raise
                with suppress(Exception):
                    self._drop_shell()
                self._shell = ""
                self._require_shell(deadline)
        raise AssertionError("unreachable")

    def _start_powershell(self, deadline: float) -> str:
        self._shell_used += 1
        return self._patiently(
            lambda: self._within(deadline).run_command(
                self._shell, "powershell.exe", COMMAND, console_mode_stdin=False, skip_cmd_shell=False
            )
        )

    def _end_command(self, command: str, *, is_over: bool) -> None:
        """Signal: ends it if it still runs. After a failure the whole shell goes, and what runs in it."""
        until = time.monotonic() + CLEANING_S
        try:
            self._within(until).cleanup_command(self._shell, command)
        except Exception:  # noqa: BLE001 - the shell's own idle time ends what we cannot
            self._forget_session()
            return
        if not is_over:
            with suppress(Exception):
                self._drop_shell()
            self._shell = ""

    # --- the shell ---

    def _require_shell(self, deadline: float) -> None:
        is_spent = self._shell_used >= SHELL_COMMANDS or time.monotonic() > self._shell_opened + SHELL_AGE_S
        if self._shell and is_spent:
            with suppress(Exception):
                self._drop_shell()
            self._shell = ""
        if self._shell:
            return
        self._shell = self._patiently(
            lambda: self._within(deadline).open_shell(codepage=65001, noprofile=True, idle_timeout="PT15M")
        )
        self._shell_used, self._shell_opened = 0, time.monotonic()
        self._has_answered = True
        self.has_signed_in.set()

    def _patiently(self, call: Callable[[], T]) -> T:
        """The call; once more after a kept connection turned out to be closed.

        For calls that may be carried out twice: a shell or an idle PowerShell too many harms nobody.
        """
        try:
            return self._resealed(call)
        except requests.exceptions.ConnectionError as error:
            if not self._has_answered or isinstance(error, requests.exceptions.SSLError):
                raise
        self._reset_transport()
        return call()

    def _resealed(self, call: Callable[[], T]) -> T:
        """The call; once more after a connection that had been good was dropped while idle.

        A message is sealed with the key of its TCP connection. After that one is gone, pywinrm says "the specified
        credentials were rejected" of the next message, although they are right. Nothing has been carried out then.
        A password that no host has taken yet is never tried twice.
        """
        try:
            return self._heard(call)
        except InvalidCredentialsError:
            if not self._has_answered:
                raise
        self._reset_transport()
        return self._heard(call)

    def _heard(self, call: Callable[[], T]) -> T:
        """The call, with a note of when the host has last said anything, a fault included."""
        try:
            result = call()
        except (WinRMOperationTimeoutError, WSManFaultError):
            self._heard_at = time.monotonic()
            raise
        self._heard_at = time.monotonic()
        return result

    def _drop_shell(self) -> None:
        if self._shell and self._protocol is not None:
            self._within(time.monotonic() + CLEANING_S).close_shell(self._shell, close_session=False)

    # --- pywinrm ---

    def _within(self, deadline: float) -> Protocol:
        """The protocol, its time-outs set for what is left. Raises Busy or Unreachable if nothing is."""
        left = deadline - time.monotonic()
        if left <= 0:
            if self._has_answered:
                raise self._is_late()
            raise Unreachable(f"Host {self.address} did not answer in time. {faults.ADVICE[Unreachable]}")
        protocol = self._protocol or self._connect()
        operation_s = max(1, min(OPERATION_S, int(left - 1)))
        protocol.operation_timeout_sec = operation_s
        read_s = max(0.2, min(left, operation_s + 5))
        self._is_fair, self._operation_s = read_s > operation_s, operation_s
        # requests takes the pair (connect, read), pywinrm only hands it on.
        protocol.transport.read_timeout_sec = (max(0.2, min(CONNECT_S, left)), read_s)  # type: ignore[assignment]
        return protocol

    def _is_late(self) -> Busy:
        return Busy(f"Host {self.address} did not finish in time. It will be tried again.")

    def _connect(self) -> Protocol:
        settings = self._settings
        is_tls = settings.transport == "https"
        sign_in: Literal["ntlm", "kerberos"] = "kerberos" if settings.sign_in == "kerberos" else "ntlm"
        protocol = Protocol("", transport=sign_in, username=settings.user, password=settings.password)
        protocol.transport = transport = GuardedTransport(
            endpoint=settings.endpoint(self.address),
            username=settings.user,
            password=settings.password,
            auth_method=sign_in,
            service="HTTP",
            # Pins stand instead of a chain; without either, nothing is trusted.
            server_cert_validation="ignore" if is_tls and settings.pins else "validate",
            ca_trust_path=str(self._ca_file()) if is_tls and not settings.pins else "/nonexistent",
            message_encryption="auto" if is_tls else "always",
            proxy=None,
        )
        transport.pins = settings.pins if is_tls else ()
        self._protocol = protocol
        return protocol

    def _ca_file(self) -> Path:
        if self._ca is None:
            handle, name = tempfile.mkstemp(dir=self._workdir, prefix="hyperv-ca-", suffix=".pem")
            with open(handle, "w", encoding="ascii") as ca:
                ca.write(self._settings.ca_certificate)
            self._ca = Path(name)
        return self._ca

    def _reset_transport(self) -> None:
        """Forget the connection and its key; the shell at the other end lives on."""
        if self._protocol is not None:
            self._protocol.transport.close_session()
            self._protocol.transport.encryption = None

    def _forget_session(self) -> None:
        with suppress(Exception):
            self._reset_transport()
        self._protocol = None
        self._shell = ""

    def _read(self, output: bytes) -> Mapping[str, Any]:
        told = unframed(output)
        if told is None:
            words = output[-500:].decode("utf-8", "replace")
            raise PlatformFault(f"Host {self.address}: PowerShell ended without an answer.", platform_words=words)
        if told.get("v") != VERSION:
            raise PlatformFault(f"Host {self.address}: a script answered in another version.")
        if not told.get("ok"):
            raise faults.of_answer(told, "a script", self.address)
        result = told.get("r")
        if not isinstance(result, dict):
            raise PlatformFault(f"Host {self.address}: a script answered with nothing.")
        return result


def unframed(output: bytes) -> dict[str, Any] | None:
    """The document between the first `<<J ` and the last ` J>>`, None if there is none: profiles print things too."""
    begin, end = output.find(b"<<J "), output.rfind(b" J>>")
    if begin < 0 or end < begin:
        return None
    try:
        told = json.loads(output[begin + 4 : end].decode("utf-8"))
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _stdin(name: str, parameters: Mapping[str, object]) -> bytes:
    """ASCII whatever the values hold: no code page can hurt it."""
    document = {"s": script(name), "p": parameters, "v": VERSION}
    return json.dumps(document, ensure_ascii=True).encode("ascii")


class GuardedTransport(Transport):
    """pywinrm's transport, with pins checked on the very connection, no redirects, no proxy and no .netrc."""

    pins: tuple[str, ...] = ()

    def build_session(self) -> requests.Session:
        if self.session is not None:
            return self.session
        session: requests.Session = (
            super().build_session()
        )  # speaks to the host only over http, where there are no pins
        session.trust_env = False
        session.max_redirects = 0
        if self.pins:
            session.mount("https://", _PinnedAdapter(self.pins))
        return session


class _PinnedAdapter(HTTPAdapter):
    """Takes only a certificate with one of these SHA-256 fingerprints, whatever it is for and whoever signed it."""

    def __init__(self, pins: tuple[str, ...]) -> None:
        self._pins = pins
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        super().init_poolmanager(*arguments, **named)
        connection = type("PinnedConnection", (_PinnedConnection,), {"pins": self._pins})
        pool = type("PinnedPool", (HTTPSConnectionPool,), {"ConnectionCls": connection})
        self.poolmanager.pool_classes_by_scheme = {"https": pool}


class _PinnedConnection(HTTPSConnection):
    pins: tuple[str, ...] = ()

    def connect(self) -> None:
        """Raises ssl.SSLError before anything is sent."""
        super().connect()
        shown = self.sock.getpeercert(binary_form=True) if isinstance(self.sock, ssl.SSLSocket) else None
        if shown is None or hashlib.sha256(shown).hexdigest() not in self.pins:
            self.close()
            raise ssl.SSLError(faults.NOT_PINNED)
        self.is_verified = True
