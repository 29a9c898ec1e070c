"""The wire: HTTPS to whichever node of a cluster answers, sessions, and what every HyperCore endpoint has in common.

There is no address of the whole cluster: the same API is served by every node, so a question goes to the node that
answered last and, if that one does not answer, to the next (vendor's field notes, rule 6). A change is never asked
twice: once a byte of it may have arrived, a lost answer is the caller's to look up. Every call has a connect and a read
timeout, since nodes that are being updated accept connections and then say nothing (rule 5). Nothing here is logged.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import quote
from uuid import uuid4

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

from connectors.errors import CertificateRejected, ConnectorError, CredentialsRejected, Unreachable
from connectors.hypercore import faults
from connectors.hypercore.faults import Refusal
from connectors.hypercore.settings import HyperCoreSettings

V1 = "/rest/v1"
CONNECT_S = 4.0
READ_S = 20.0
"""A node that takes longer for an answer is taken for one that hangs."""
LEAST_S = 0.5
"""A node is not asked at all with less time than this, unless it is the only one."""
FAREWELL_S = 1.0
SIGN_IN_S = 30.0
STALLED_S = 60.0
"""A node that takes nothing more of an upload for so long hangs."""
TAKEN_S = 600.0
"""How long a node may take to answer once it has all of an upload."""
UPLOAD_S = 7 * 86_400.0

Record = Mapping[str, Any]


@runtime_checkable
class Content(Protocol):
    """A body that is read while it is sent."""

    def __len__(self) -> int:
        """Bytes of all of it."""

    def read(self, size: int = -1, /) -> bytes: ...

    def rewind(self) -> None:
        """It is sent again, from its beginning."""


class OutOfTime(Exception):
    """The deadline has passed: nothing was asked."""


class _PinRejected(ssl.SSLError):
    """The certificate is not one of those that were pinned."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a change is answered with (field notes, rule 1): a task to wait for (empty: none), and what it makes."""

    task: str
    created: str


class Wire:
    """One cluster. Made without I/O; not safe among threads."""

    def __init__(self, settings: HyperCoreSettings, workdir: Path) -> None:
        self._settings = settings
        self._authority = workdir / f"hypercore-{uuid4().hex}.pem"
        self._lines: dict[str, _Line] = {}
        self._found: tuple[str, ...] = ()
        self._last = ""

    @property
    def name(self) -> str:
        return self._settings.endpoint

    # --- asking ---

    def get(self, path: str, deadline: float, doing: str) -> list[Record]:
        """All records of a kind, or the one of an id in a list; [] if that id is unknown (200 with [] and 404 are the
        same). A kind that is unknown is no empty listing.

        Raises `Unreachable` and its kin, or `Refusal`.
        """
        nodes = self._nodes()
        failures: list[ConnectorError] = []
        for place, node in enumerate(nodes):
            until = self._share(deadline, len(nodes) - place)
            try:
                found = self._line(node).call("GET", path, None, until, doing)
            except Refusal as refusal:
                self._last = node
                if refusal.status == 404 and path.count("/") > 1:
                    return []
                raise
            except Unreachable as error:
                if node in self._settings.nodes:
                    failures.append(error)
                continue
            self._last = node
            return _records(found, self.name, doing)
        raise _worst(failures)

    def change(self, method: str, path: str, body: object, deadline: float, doing: str) -> Answer:
        """Ask for a change, once. Fails over only from nodes that no connection could be made to.

        Raises `Unreachable` and its kin (it may have been done), or `Refusal` (it was not).
        """
        nodes = self._nodes()
        failures: list[ConnectorError] = []
        for place, node in enumerate(nodes):
            line = self._line(node)
            until = self._share(deadline, len(nodes) - place)
            try:
                # Signs in first, so that a stale or hanging node shows before anything is asked of it.
                line.require_session(until, doing)
            except Unreachable as error:
                failures.append(error)
                continue
            try:
                said = line.call(method, path, body, max(until, min(deadline, time.monotonic() + READ_S)), doing)
            except _NotSent as error:
                failures.append(error)
                continue
            except Unreachable as error:
                raise _worst([error]) from None
            self._last = node
            found = said if isinstance(said, dict) else {}
            return Answer(str(found.get("taskTag") or ""), str(found.get("createdUUID") or ""))
        raise _worst(failures)

    def upload(self, path: str, content: Content, doing: str) -> Answer:
        """As `change`, with a body that is larger than memory; lasts as long as the node takes it.

        Raises as `change` does.
        """
        deadline = time.monotonic() + SIGN_IN_S
        nodes = self._nodes()
        failures: list[ConnectorError] = []
        for place, node in enumerate(nodes):
            line = self._line(node)
            until = self._share(deadline, len(nodes) - place)
            try:
                # A session that has ended shows here, before much is sent in vain.
                line.call("GET", "/Cluster", None, until, doing)
            except Unreachable as error:
                failures.append(error)
                continue
            try:
                said = line.upload(V1 + path, content, doing)
            except _NotSent as error:
                failures.append(error)
                continue
            except Unreachable as error:
                raise _worst([error]) from None
            self._last = node
            found = said if isinstance(said, dict) else {}
            return Answer(str(found.get("taskTag") or ""), str(found.get("createdUUID") or ""))
        raise _worst(failures)

    def ask_node(self, node: str, path: str, deadline: float, doing: str) -> list[Record]:
        """As `get`, of this very node."""
        return _records(self._line(node).call("GET", path, None, deadline, doing), f"Node {node}", doing)

    def update_status(self, deadline: float) -> Record | None:
        """What `/update/update_status.json` says; None if the cluster has never been updated (404). Needs no session.

        Raises `Unreachable`, or `Refusal`.
        """
        doing = "looking for a running update"
        for node in self._nodes():
            with suppress(Unreachable):
                try:
                    said = self._line(node).send("GET", "/update/update_status.json", None, deadline, doing)
                except Refusal as refusal:
                    if refusal.status == 404:
                        return None
                    raise
                return said if isinstance(said, dict) else {}
        raise Unreachable(f"{self.name}: {doing} failed. {faults.ADVICE[Unreachable]}")

    def learn_nodes(self, addresses: Iterable[str]) -> None:
        """Nodes that the cluster told of: asked once those of the settings do not answer."""
        self._found = tuple(dict.fromkeys(address for address in addresses if address))

    def close(self) -> None:
        """Signs out where it can in a moment. Idempotent; never raises."""
        until = time.monotonic() + 2 * FAREWELL_S
        for line in self._lines.values():
            line.close(until)
        self._lines.clear()
        with suppress(OSError):
            self._authority.unlink(missing_ok=True)

    # --- nodes ---

    def _nodes(self) -> list[str]:
        """All nodes, the one that answered last first."""
        known = list(dict.fromkeys((*self._settings.nodes, *self._found)))
        return sorted(known, key=lambda node: node != self._last)

    def _share(self, deadline: float, left: int) -> float:
        """Until when the next of so many nodes may take: none eats all the time of those after it."""
        now = time.monotonic()
        if now >= deadline:
            raise OutOfTime
        share = (deadline - now) / 2 if left > 1 else deadline - now
        return min(deadline, now + max(LEAST_S, min(READ_S, share)))

    def _line(self, node: str) -> _Line:
        if node not in self._lines:
            if not self._settings.pins and not self._authority.exists():
                # requests wants it as a file
                self._authority.write_text(self._settings.ca_certificate)
            self._lines[node] = _Line(node, self._settings, self._authority)
        return self._lines[node]


class _BrokenOff(Unreachable):
    """The connection ended before an answer came."""


class _NotSent(Unreachable):
    """No connection could be made: what was to be asked has not been."""


class _NotSentCertificate(CertificateRejected, _NotSent):
    """As above, for the certificate's sake."""


class _Line:
    """One node: its connections, and our session on it."""

    def __init__(self, node: str, settings: HyperCoreSettings, authority: Path) -> None:
        self._node = node
        self._settings = settings
        self._base = f"https://{f'[{node}]' if ':' in node and '[' not in node else node}:{settings.real_port}"
        self._session_id = ""
        self._http = requests.Session()
        self._http.trust_env = False  # no proxies and no .netrc of the machine we run on
        self._http.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # the session is sent by hand
        self._http.mount("https://", _PinnedAdapter(settings.pins) if settings.pins else HTTPAdapter())
        self._http.verify = False if settings.pins else str(authority)

    def call(self, method: str, path: str, body: object, deadline: float, doing: str) -> Any:
        """The answer, signed in; signs in anew once if the session has ended meanwhile."""
        self.require_session(deadline, doing)
        try:
            return self.send(method, V1 + path, body, deadline, doing)
        except _BrokenOff:
            if method != "GET":
                raise
            # As a node does with connections that were idle for long. A question may be asked again.
            return self.send(method, V1 + path, body, deadline, doing)
        except Refusal as refusal:
            if refusal.status != 401:
                raise
        self._session_id = ""
        self.require_session(deadline, doing)
        try:
            return self.send(method, V1 + path, body, deadline, doing)
        except Refusal as refusal:
            if refusal.status != 401:
                raise
            raise self._rejected(refusal) from None

    def upload(self, path: str, content: Content, doing: str) -> Any:
        """As `call`, for a body that is read while it is sent."""
        try:
            return self.send("PUT", path, content, time.monotonic() + UPLOAD_S, doing)
        except Refusal as refusal:
            if refusal.status != 401:
                raise
        self._session_id = ""
        content.rewind()
        self.require_session(time.monotonic() + SIGN_IN_S, doing)
        try:
            return self.send("PUT", path, content, time.monotonic() + UPLOAD_S, doing)
        except Refusal as refusal:
            if refusal.status != 401:
                raise
            raise self._rejected(refusal) from None

    def require_session(self, deadline: float, doing: str) -> None:
        """POST /login gives a session id, as JSON and as a cookie (field notes, "Auth")."""
        if self._session_id:
            return
        login = {"username": self._settings.user, "password": self._settings.password, "useOIDC": False}
        try:
            said = self.send("POST", f"{V1}/login", login, deadline, f"{doing} (signing in)")
        except Refusal as refusal:
            if refusal.status in (400, 401, 403):
                raise self._rejected(refusal) from None
            raise
        self._session_id = str(said.get("sessionID") or "") if isinstance(said, dict) else ""
        if not self._session_id:
            raise Unreachable(f"Node {self._node} gave no session at sign-in. Check that a HyperCore node is there.")

    def _rejected(self, refusal: Refusal) -> CredentialsRejected:
        return CredentialsRejected(
            f"Node {self._node} refused account {self._settings.user!r}. {faults.ADVICE[CredentialsRejected]}",
            platform_words=refusal.words,
        )

    def send(self, method: str, path: str, body: object, deadline: float, doing: str) -> Any:
        """One request. Raises `Refusal` for every status but success, `Unreachable` and its kin for all else."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise OutOfTime
        is_long = isinstance(body, Content)
        # While a body is sent, the first one is how long a node may take no more of it.
        timeouts = (min(CONNECT_S, left), min(READ_S, left)) if not is_long else (STALLED_S, TAKEN_S)
        headers = {"Accept": "application/json"}
        raw = body if isinstance(body, (bytes, Content)) else None
        if raw is not None:
            headers["Content-Type"] = "application/octet-stream"  # with its length: chunks are refused
        if self._session_id:
            headers["Cookie"] = f"sessionID={self._session_id}"
        try:
            with self._http.request(
                method, self._base + path, json=None if raw is not None else body, data=raw, headers=headers,
                timeout=timeouts,
                allow_redirects=False, stream=True,
            ) as response:  # fmt: skip
                content = _read(response, deadline)
        except requests.RequestException as error:
            raise self._lost(error, doing) from None
        return self._judged(response, content, doing)

    def _judged(self, response: requests.Response, content: bytes, doing: str) -> Any:
        try:
            said = json.loads(content) if content.strip() else {}
        except ValueError:
            said = None
        if response.status_code in faults.BY_STATUS or not response.ok:
            words = said.get("error") if isinstance(said, dict) else None
            said_no = self._settings.redacted(str(words or response.reason))[:500]
            refusal = Refusal(response.status_code, said_no, _seconds(response))
            if faults.BY_STATUS.get(response.status_code) is Unreachable:
                raise Unreachable(
                    f"Node {self._node}: {doing} failed, it answers {response.status_code}. "
                    f"{faults.ADVICE[Unreachable]}",
                    platform_words=refusal.words,
                )
            raise refusal
        if said is None:
            # Pages of HTML come from the web server in front, while the API behind it is being restarted.
            raise Unreachable(f"Node {self._node}: {doing} failed, what came is no JSON. {faults.ADVICE[Unreachable]}")
        return said

    def _lost(self, error: requests.RequestException, doing: str) -> ConnectorError:
        causes = list(_causes(error))
        if any(isinstance(cause, (ssl.SSLCertVerificationError, _PinRejected)) for cause in causes):
            return _NotSentCertificate(
                f"Node {self._node} showed a certificate that is not trusted. {faults.ADVICE[CertificateRejected]}",
                platform_words=_words(causes),
            )
        # Other TLS errors do not count: they also end connections on which something was asked.
        is_unsent = isinstance(error, requests.ConnectTimeout) or any(
            isinstance(cause, NewConnectionError) for cause in causes
        )
        said = "gave no answer in time" if isinstance(error, requests.Timeout) else "broke off the connection"
        kind: type[Unreachable] = _NotSent if is_unsent else Unreachable
        if not is_unsent and isinstance(error, requests.ConnectionError) and not isinstance(error, requests.Timeout):
            kind = _BrokenOff
        return kind(
            f"Node {self._node} {said} while {doing}. {faults.ADVICE[Unreachable]}", platform_words=_words(causes)
        )

    def close(self, until: float) -> None:
        session, left = self._session_id, until - time.monotonic()
        if session and left > 0:
            with suppress(Exception):
                self.send("POST", f"{V1}/logout", None, time.monotonic() + min(FAREWELL_S, left), "signing out")
        self._session_id = ""
        with suppress(Exception):
            self._http.close()


def _read(response: requests.Response, deadline: float) -> bytes:
    """The body, as long as there is time: a node that trickles is one that hangs."""
    parts = []
    for part in response.iter_content(65_536):
        parts.append(part)
        if time.monotonic() > deadline:
            raise requests.ReadTimeout("the answer took too long")
    return b"".join(parts)


def _records(said: Any, who: str, doing: str) -> list[Record]:
    """Every GET gives an array (field notes, rule 2)."""
    if isinstance(said, dict):
        return [said]
    if isinstance(said, list) and all(isinstance(record, dict) for record in said):
        return said
    raise Unreachable(f"{who}: {doing} failed, what came is no list of records. {faults.ADVICE[Unreachable]}")


def _worst(failures: Sequence[ConnectorError]) -> ConnectorError:
    """What to tell once no node answered: the certificate first, since only a person can mend that."""
    for error in failures:
        if isinstance(error, CertificateRejected):
            return CertificateRejected(error.message, platform_words=error.platform_words)
    last = failures[-1]
    others = f" None of the {len(failures)} nodes answered." if len(failures) > 1 else ""
    return Unreachable(last.message + others, platform_words=last.platform_words)


def _causes(error: BaseException) -> Iterable[BaseException]:
    """What an error of requests hides: urllib3's, and the socket's below it."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]


def _words(causes: Sequence[BaseException]) -> str:
    """The innermost error: the outer ones show addresses of Python objects."""
    return f"{type(causes[-1]).__name__}: {causes[-1]}"[:300]


def _seconds(response: requests.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None


def segment(value: str) -> str:
    """A part of a path, whatever is in it."""
    return quote(value, safe="")


# --- pinning ---------------------------------------------------------------------------------------------------------


class _PinnedAdapter(HTTPAdapter):
    """HTTPS to servers whose certificate is one of those pinned, looked at on the very connection before it is used."""

    def __init__(self, pins: frozenset[str]) -> None:
        self._pins = pins
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        connection = type("PinnedConnection", (_PinnedConnection,), {"pins": self._pins})
        pool = type("PinnedPool", (HTTPSConnectionPool,), {"ConnectionCls": connection})
        self.poolmanager.pool_classes_by_scheme = {"https": pool}


class _PinnedConnection(HTTPSConnection):
    pins: frozenset[str] = frozenset()

    def connect(self) -> None:
        super().connect()
        shown = self.sock.getpeercert(binary_form=True) if isinstance(self.sock, ssl.SSLSocket) else None
        if shown is None or hashlib.sha256(shown).hexdigest() not in self.pins:
            self.close()
            raise _PinRejected("the certificate's fingerprint is not one of those pinned")
        self.is_verified = True
