"""The wire to Prism Central: HTTPS, signing in, versions, ETags, paging, pace. It knows no order and no machine.

Every call ends by its deadline. Reading is repeated once when the connection breaks, and so is changing: with the same
`NTNX-Request-Id`, which is Prism's token for "this is the request I sent before" (vendor SDKs send one on every call,
and ask for the same one after a network error).
"""

from __future__ import annotations

import json
import math
import re
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import requests
from requests.adapters import HTTPAdapter

from connectors.errors import ConnectorError, PlatformFault, Unreachable
from connectors.nutanix import faults, pace
from connectors.nutanix.faults import Refusal
from connectors.nutanix.pace import retry_after_s
from connectors.nutanix.settings import NutanixSettings

Json = Mapping[str, Any]

OURS: Mapping[str, tuple[int, int]] = {
    "vmm": (4, 3), "prism": (4, 4), "clustermgmt": (4, 3), "networking": (4, 4), "dataprotection": (4, 4),
    "datapolicies": (4, 3),
}  # fmt: skip
"""The newest version of each namespace that we know; SDKs carry versions of their own a namespace, and so does a PC."""
OLDEST = (4, 0)
NEW_IN_4_1: Mapping[str, str] = {"vmm": "ahv/config/vm-recovery-points"}
"""Namespace -> a list that v4.1 brought, and without which something would be missing."""

CALL_S = 20.0
"""How long one call may take, if its deadline leaves so much."""
CONNECT_S = 5.0
STALL_S = 60.0
"""How long the next bytes of a file may keep us waiting."""
PAGE = 100
"""The largest page ($limit 1..100; more is refused with 400)."""
LARGEST_BODY = 64 * 1024 * 1024
COOKIE = "NTNX_IAM_SESSION"
FRESH_S = 30.0
BRIEF_S = 0.3
"""How long to remember what was found to change all the time."""

T = TypeVar("T")


class OutOfTime(Exception):
    """The deadline has passed, or would before the call may be made: nothing was sent."""

    def __init__(self, wait_s: float = 0.5) -> None:
        super().__init__("out of time")
        self.wait_s = wait_s


class NoTurn(OutOfTime):
    """The rate limits have no room for the call in time. Prism itself may be well."""


class Precondition(Exception):
    """412 or 428: what we read has changed since. Nothing was done; read again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer."""

    body: Json
    etag: str = ""

    @property
    def data(self) -> Any:
        """Empty lists come without a `data` key."""
        return self.body.get("data")


@dataclass(slots=True)
class Listing:
    """All pages of a list."""

    items: list[Json] = field(default_factory=list)
    is_whole: bool = True
    """False if fewer things were given than the server counted: the list changed while it was read."""


class Client:
    """One Prism Central. Made without I/O."""

    def __init__(self, settings: NutanixSettings, workdir: Path) -> None:
        self._settings = settings
        self._workdir = workdir
        self._pace = pace.shared(settings.address, settings.port, settings.account)
        self._session: requests.Session | None = None
        self._cookies: dict[str, str] = {}
        """Of the session, once Prism has opened one."""
        self._versions: dict[str, tuple[int, int]] = {}
        self._remembered: dict[str, tuple[float, object]] = {}
        self._passing: set[str] = set()
        """Names of what was remembered for too long."""
        self.patience_s = 2.0
        """How long a call may wait for its turn under the rate limits."""

    def __repr__(self) -> str:
        return f"<Client {self._settings.endpoint}>"

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
        self._cookies = {}

    # --- what can be asked --------------------------------------------------------------------------------------------

    def version(self, namespace: str, deadline: float) -> tuple[int, int]:
        """The version both sides know, found out once."""
        if namespace not in self._versions:
            self._versions[namespace] = self._negotiate(namespace, deadline)
        return self._versions[namespace]

    def get(
        self, namespace: str, path: str, deadline: float, *, query: Mapping[str, str] | None = None, doing: str
    ) -> Answer:
        return self._call("GET", namespace, path, deadline, query=query, doing=doing)

    def list(
        self, namespace: str, path: str, deadline: float, *, query: Mapping[str, str] | None = None, doing: str
    ) -> Listing:
        """Every page. Things that show up on two pages, since the list moved meanwhile, are given once."""
        listing, seen, page = Listing(), set[str](), 0
        while True:
            asked = {"$page": str(page), "$limit": str(PAGE)} | dict(query or {})
            answer = self.get(namespace, path, deadline, query=asked, doing=doing)
            items = [item for item in answer.data or () if isinstance(item, dict)]
            for item in items:
                name = str(item.get("extId") or item.get("containerExtId") or uuid4())
                if name not in seen:
                    seen.add(name)
                    listing.items.append(item)
            metadata = answer.body.get("metadata")
            total = metadata.get("totalAvailableResults") if isinstance(metadata, dict) else None
            page += 1
            if not isinstance(total, int):  # some answers have no metadata: a page that is not full is the last
                if len(items) < PAGE:
                    return listing
            elif page * PAGE >= total or not items:
                listing.is_whole = len(listing.items) >= total
                return listing

    def act(
        self,
        method: str,
        namespace: str,
        path: str,
        deadline: float,
        *,
        request_id: str,
        etag: str = "",
        body: Json | None = None,
        doing: str,
    ) -> Answer:
        """Change something. Raises `Precondition` if the ETag is no longer the thing's."""
        headers = {"NTNX-Request-Id": request_id} | ({"If-Match": etag} if etag else {})
        return self._call(method, namespace, path, deadline, headers=headers, body=body, doing=doing)

    def stream(self, namespace: str, path: str, deadline: float, *, offset: int = 0, doing: str) -> requests.Response:
        """A file, of which the caller reads `raw` and closes the answer. From `offset` on (206) or, where Prism does
        not know how, from its beginning (200)."""
        major, minor = self.version(namespace, deadline)
        headers = {"Accept": "application/octet-stream, application/json", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        route = f"GET {namespace}/{_route(path)}"
        url = f"/api/{namespace}/v{major}.{minor}/{path}"
        answer = self._authorized("GET", url, route, deadline, headers, None, doing, is_file=True)
        if answer.status_code >= 300:
            raise self.told(_refusal(answer), doing)
        return answer

    def plain(
        self, method: str, url: str, route: str, deadline: float, *, headers: Mapping[str, str], data: bytes, doing: str
    ) -> requests.Response:
        """A request that signs in by itself, in its turn; whatever is answered. Raises what is wrong with the line."""
        self._wait_for_turn(route, min(deadline, time.monotonic() + self.patience_s))
        left = deadline - time.monotonic()
        if left <= 0:
            raise OutOfTime
        try:
            return self._exchange(method, url, headers, data, left)
        except requests.exceptions.RequestException as error:
            self.close()
            raise faults.of_the_line(error, doing, self._settings.endpoint, self._secrets) from None

    def remembered(self, name: str, ask: Callable[[], T], *, fresh_s: float = FRESH_S) -> T:
        """What was asked under this name less than `fresh_s` ago; else asked now. For what a batch needs again and
        again and what hardly changes."""
        at, found = self._remembered.get(name, (-math.inf, None))
        if time.monotonic() - at >= (BRIEF_S if name in self._passing else fresh_s):
            found = ask()
            self._remembered[name] = (time.monotonic(), found)
        known: T = found  # type: ignore[assignment]
        return known

    def forget(self, name: str) -> None:
        """What is remembered under this name is not so any more. As it may change again at once, as a template may with
        each clone of it, it is remembered for `BRIEF_S` from now on: what is refused costs more than a reading."""
        self._remembered.pop(name, None)
        self._passing.add(name)

    def told(self, refusal: Refusal, doing: str) -> ConnectorError:
        """A refusal in our words, without secrets."""
        return faults.ours(refusal, doing, self._settings.endpoint, self._secrets)

    @property
    def _secrets(self) -> tuple[str, ...]:
        cookies = (value for value in self._cookies.values() if len(value) >= 8)
        return (*self._settings.secrets, *cookies, *self._basic_words())

    # --- versions -----------------------------------------------------------------------------------------------------

    def _negotiate(self, namespace: str, deadline: float) -> tuple[int, int]:
        """The lower of the server's version and ours; v4.0 where the server has no such question (before PC 7.5).

        `OPTIONS /api/{namespace}/unversioned/info` -> `{"data": "v4.2"}` (ntnx_vmm_py_client 4.3.2, `ApiClient.
        negotiate_version`).
        """
        path = f"/api/{namespace}/unversioned/info"
        doing = "asking which version it speaks"
        answer = self._authorized("OPTIONS", path, f"OPTIONS {namespace}", deadline, {}, None, doing)
        if answer.status_code == 200:
            body = _json(answer)
            found = re.fullmatch(r"v(\d+)\.(\d+)(?:\..*)?", str(body.get("data", "")))
            if found and int(found[1]) == OLDEST[0]:
                return min(OURS[namespace], (int(found[1]), int(found[2])))
        elif answer.status_code in (401, 429, 503):
            raise self.told(_refusal(answer), doing)
        return self._tried(namespace, deadline)

    def _tried(self, namespace: str, deadline: float) -> tuple[int, int]:
        """v4.0, unless something answers that v4.1 brought: v4.1 has no question for its version either."""
        if namespace not in NEW_IN_4_1:
            return OLDEST
        path = f"/api/{namespace}/v4.1/{NEW_IN_4_1[namespace]}?$page=0&$limit=1"
        answer = self._authorized("GET", path, f"GET {namespace}/v4.1", deadline, {}, None, "asking for v4.1")
        if answer.status_code in (401, 429, 503):
            raise self.told(_refusal(answer), "asking for v4.1")
        return (4, 1) if answer.status_code < 300 else OLDEST

    def _renegotiated(self, namespace: str, deadline: float) -> bool:
        """Whether another version is spoken now, as after an upgrade or on another node."""
        before = self._versions.pop(namespace, None)
        return self.version(namespace, deadline) != before

    # --- a call -------------------------------------------------------------------------------------------------------

    def _call(
        self,
        method: str,
        namespace: str,
        path: str,
        deadline: float,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Json | None = None,
        doing: str,
    ) -> Answer:
        for is_last in (False, True):
            major, minor = self.version(namespace, deadline)
            url = f"/api/{namespace}/v{major}.{minor}/{path}" + _query(query)
            route = f"{method} {namespace}/{_route(path)}"
            answer = self._authorized(method, url, route, deadline, headers or {}, body, doing)
            status = answer.status_code
            if status < 300:
                etag = answer.headers.get("Etag") or answer.headers.get("X-Ntnx-Etag") or ""
                return Answer(self._understood(answer, doing), etag)
            if status in (412, 428) and method != "GET":
                raise Precondition
            refusal = _refusal(answer)
            if status == 404 and not refusal.is_entity and not is_last and self._renegotiated(namespace, deadline):
                continue
            raise self.told(refusal, doing)
        raise AssertionError("the second round always ends")  # pragma: no cover

    def _understood(self, answer: requests.Response, doing: str) -> Json:
        """Raises `PlatformFault` if it is no JSON: somebody else than Prism has answered."""
        body = _json(answer)
        if answer.content.strip() and not body:
            raise PlatformFault(
                f"{doing[:1].upper()}{doing[1:]} failed: {self._settings.endpoint} answered with something that is not "
                "JSON. Check that a Prism Central is at this address."
            )
        return body

    def _authorized(
        self,
        method: str,
        url: str,
        route: str,
        deadline: float,
        headers: Mapping[str, str],
        body: Json | None,
        doing: str,
        *,
        is_file: bool = False,
    ) -> requests.Response:
        """With the session's cookie; when that has expired, once more with the account itself; redirects replayed."""
        used_cookie = bool(self._cookies)
        answer = self._send(method, url, route, deadline, {**headers, **self._identity()}, body, doing, is_file=is_file)
        if answer.status_code == 401 and used_cookie:
            self._cookies = {}
            answer = self._send(
                method, url, route, deadline, {**headers, **self._identity()}, body, doing, is_file=is_file
            )
        token = answer.headers.get("X-Redirect-Token")
        if answer.status_code in (302, 307) and token:
            answer = self._send(
                method, url, route, deadline, {**headers, "Cookie": token}, body, doing, is_file=is_file
            )
        if answer.cookies.get(COOKIE):
            self._cookies = {name: value for name, value in answer.cookies.items() if value}
        return answer

    def _identity(self) -> dict[str, str]:
        if self._settings.sign_in == "api_key":
            return {"X-ntnx-api-key": self._settings.api_key}
        if self._cookies:
            return {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        return {"Authorization": f"Basic {self._basic_words()[0]}"}

    def _basic_words(self) -> tuple[str, ...]:
        if self._settings.sign_in == "api_key":
            return ()
        pair = f"{self._settings.user}:{self._settings.password}"
        return (b64encode(pair.encode()).decode(),)

    def _send(
        self,
        method: str,
        url: str,
        route: str,
        deadline: float,
        headers: Mapping[str, str],
        body: Json | None,
        doing: str,
        *,
        is_file: bool = False,
    ) -> requests.Response:
        """One request in its turn; sent again once, with the same request id, if the connection breaks.

        A refusal for haste did nothing: the request waits for its turn again while patience lasts, and is `NoTurn`
        then. Once Prism has said nothing else on this route for long, the refusal is the answer.
        """
        told = {"Accept": "application/json", "NTNX-Request-Id": str(uuid4()), **headers}
        data = None
        if method in ("POST", "PUT"):
            told["Content-Type"] = "application/json"
            data = json.dumps(body if body is not None else {}).encode()
        until, was_broken = min(deadline, time.monotonic() + self.patience_s), False
        while True:
            self._wait_for_turn(route, until)
            left = deadline - time.monotonic()
            if left <= 0:
                raise OutOfTime
            try:
                answer = self._exchange(method, url, told, data, min(left, CALL_S), is_file=is_file)
            except requests.exceptions.RequestException as error:
                fault = faults.of_the_line(error, doing, self._settings.endpoint, self._secrets)
                is_broken = isinstance(
                    error, (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)
                ) and not isinstance(error, (requests.exceptions.SSLError, requests.exceptions.Timeout))
                if was_broken or not is_broken or type(fault) is not Unreachable or time.monotonic() >= deadline:
                    self.close()
                    raise fault from None
                was_broken = True
                continue
            self._pace.learn(route, answer.headers)
            if not _is_for_haste(answer):
                self._pace.answered(route)
                return answer
            if self._pace.refused(route, answer.headers) >= pace.LONG_S:
                return answer

    def _wait_for_turn(self, route: str, until: float) -> None:
        while (wait := self._pace.take(route)) > 0:
            if time.monotonic() + wait > until:
                raise NoTurn(wait)
            time.sleep(wait)

    def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: bytes | None,
        limit_s: float,
        *,
        is_file: bool = False,
    ) -> requests.Response:
        """The whole answer within the limit, however slowly it drips in; of a file only its head."""
        until = time.monotonic() + limit_s
        session = self._open()
        answer = session.request(
            method,
            f"https://{_host(self._settings.address)}:{self._settings.port}{url}",
            headers=dict(headers),
            data=data,
            timeout=(min(CONNECT_S, limit_s), STALL_S if is_file else limit_s),
            allow_redirects=False,
            stream=True,
        )
        if is_file and answer.status_code < 300:
            return answer
        content = bytearray()
        for part in answer.iter_content(65536):
            content += part
            if time.monotonic() > until or len(content) > LARGEST_BODY:
                answer.close()
                raise requests.exceptions.ReadTimeout("the answer took too long or was too long")
        answer._content = bytes(content)
        return answer

    def _open(self) -> requests.Session:
        if self._session is None:
            session = requests.Session()
            session.trust_env = False  # no proxies and no .netrc of whoever started us
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # we keep the one that matters
            session.verify = self._trusted()
            session.mount("https://", _Pinned(self._settings.pin))
            self._session = session
        return self._session

    def _trusted(self) -> str | bool:
        """The file with the trusted certificate; False only where the pin is checked on the connection itself."""
        if self._settings.ca_certificate.strip():
            pem = self._settings.ca_certificate.strip() + "\n"
            self._workdir.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Named by what is in it: connectors of other Prism Centrals may share the folder, at the same moment.
            file = self._workdir / f"prism-ca-{sha256(pem.encode()).hexdigest()[:16]}.pem"
            fresh = file.with_suffix(f".{uuid4().hex}")
            fresh.write_text(pem)
            fresh.replace(file)
            return str(file)
        return not self._settings.pin


class _Pinned(HTTPAdapter):
    """Checks the certificate's SHA-256 on every new connection, before a byte of a request is sent (urllib3's
    `assert_fingerprint`). Without a pin it is the usual adapter."""

    def __init__(self, pin: str) -> None:
        self._pin = pin
        super().__init__(max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **how: Any) -> None:
        if self._pin:
            how["assert_fingerprint"] = self._pin
        super().init_poolmanager(connections, maxsize, block, **how)


def segment(text: str) -> str:
    """One part of a path: task ids hold `=` and `:` (`ZXJnb24=:uuid`), which have to be encoded."""
    return quote(text, safe="")


def literal(text: str) -> str:
    """A string in an OData filter: quotes are doubled (OData 4.01, URL conventions 5.1.1.14)."""
    return "'" + text.replace("'", "''") + "'"


def _query(query: Mapping[str, str] | None) -> str:
    return (
        "?" + "&".join(f"{quote(name, safe='$')}={quote(value, safe='')}" for name, value in query.items())
        if query
        else ""
    )


_ID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|ZXJnb24[^/]*")


def _route(path: str) -> str:
    """The path without ids: limits are the route's."""
    return _ID.sub("{}", path)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _json(answer: requests.Response) -> Json:
    """The body as an object; whatever is not one is empty."""
    try:
        body = json.loads(answer.content) if answer.content else {}
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _is_for_haste(answer: requests.Response) -> bool:
    """Whether Prism refused it because a rate is used up. A bare 429 may be anybody's on the way: it is `Busy`."""
    if answer.status_code < 400:
        return False
    words, _ = error_words(_json(answer))
    return faults.RATE_LIMIT in words or (answer.status_code == 429 and pace.tells_limits(answer.headers))


def _refusal(answer: requests.Response) -> Refusal:
    words, is_entity = error_words(_json(answer))
    return Refusal(answer.status_code, words, is_entity, retry_after_s(answer.headers))


def error_words(body: Json) -> tuple[str, bool]:
    """Codes, groups and messages of an error body, and whether it is an application error (a list of AppMessage)."""
    holder = body.get("data") if isinstance(body.get("data"), dict) else body
    error = holder.get("error") if isinstance(holder, dict) else None
    if isinstance(error, list):
        return "\n".join(message_words(item) for item in error if isinstance(item, dict)), True
    if isinstance(error, dict):
        found = error.get("validationErrorMessages") or ()
        details = [
            f"{item.get('attributePath', '')} {item.get('message', '')}" for item in found if isinstance(item, dict)
        ]
        return "\n".join([str(error.get("error", "")), *details]).strip(), False
    return "", False


def message_words(item: Json) -> str:
    """One AppMessage on one line."""
    parts = (item.get("code"), item.get("errorGroup"), item.get("message"))
    return " ".join(str(part) for part in parts if part)
