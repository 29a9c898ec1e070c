"""The wire: a session with one endpoint, calls by pyvmomi's types, properties by our own reading.

No property is ever read lazily: pyvmomi would send its internal `Fetch`, one call for one property of one object, and
real servers drop the connection over some of them. Here that raises at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from connectors.errors import ConnectorError, CredentialsRejected, PlatformFault, Unreachable
from connectors.esxi import faults, soap
from connectors.esxi.api import SoapAdapter
from connectors.esxi.faults import VimFault
from connectors.esxi.settings import EsxiSettings
from connectors.esxi.transport import Connection, Wire

PAGE = 500
"""Objects in an answer."""
BAN_S = 30.0
"""How long a refused account is not tried again by one connector: whoever hammers it gets it locked."""
LOGOUT_S = 1.0

_READINGS = {
    "RetrieveServiceContent", "RetrievePropertiesEx", "ContinueRetrievePropertiesEx", "WaitForUpdatesEx", "FindByUuid",
    "FindChild", "HasPrivilegeOnEntities", "CurrentTime", "Login",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Service:
    """What stands at the other end, and the ids of its managers."""

    product: str
    version: str
    is_vcenter: bool
    refs: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name in ServiceContent -> (type, id)."""

    def id(self, name: str) -> str:
        return self.refs.get(name, ("", ""))[1]


class Client:
    """One endpoint with one session, signed in when first needed and again when it has run out. Safe among threads."""

    def __init__(self, settings: EsxiSettings) -> None:
        self.settings = settings
        self._wire = Wire(settings)
        self._lock = threading.RLock()
        self._cookie = ""
        self._service: Service | None = None
        self._session_key = ""
        self._refused: tuple[float, CredentialsRejected] | None = None
        self.generation = 0
        """Grows with every session: views and collectors die with the one that made them."""

    # --- session ---

    def service(self, deadline: float) -> Service:
        """Signed in. Raises `Unreachable`, `CertificateRejected`, `CredentialsRejected`, `Busy`."""
        with self._lock:
            if self._service is None:
                self._sign_in(deadline)
            assert self._service is not None  # noqa: S101 - for the type checker
            return self._service

    def session_key(self) -> str:
        return self._session_key

    def _sign_in(self, deadline: float) -> None:
        if self._refused and time.monotonic() < self._refused[0]:
            raise self._refused[1]
        settings = self.settings
        self._cookie, self._service = "", None
        content = soap.returned(self._ask("RetrieveServiceContent", ("ServiceInstance", "ServiceInstance"), deadline))
        service = _service(content)
        account = soap.element("userName", settings.user) + soap.element("password", settings.password)
        try:
            answer = self._ask("Login", service.refs.get("sessionManager", ("", "")), deadline, account)
        except VimFault as fault:
            if fault.is_a("InvalidLogin", "NoPermission"):
                error = CredentialsRejected(
                    f"Endpoint {settings.endpoint} refuses the account {settings.user!r}. "
                    f"{faults.ADVICE[CredentialsRejected]}",
                    platform_words=fault.name,
                )
                self._refused = (time.monotonic() + BAN_S, error)
                raise error from None
            raise faults.ours(fault, "signing in", settings.endpoint) from None
        self._refused = None
        self._session_key = soap.text(soap.returned(answer), "key")
        self._service = service
        self.generation += 1

    def _ask(self, method: str, this: tuple[str, str], deadline: float, inner: str = "") -> soap.Element:
        """Without a session. Raises `VimFault`."""
        status, answer = self._post(soap.request(method, this, inner), deadline, method)
        body = self._parsed(answer)
        if status != 200:
            raise faults.of_answer(body)
        return body

    def close(self) -> None:
        """Sign out if that is quickly done; views and collectors go with the session. Never raises."""
        service, self._service = self._service, None
        if service is not None:
            with suppress(ConnectorError, soap.Unreadable):
                manager = service.refs.get("sessionManager", ("", ""))
                self._post(soap.request("Logout", manager), time.monotonic() + LOGOUT_S, "Logout")
        self._wire.close()

    # --- bytes beside the calls ---

    def connect(self) -> Connection:
        """A connection of the caller's own to the endpoint. Raises `Unreachable`, `CertificateRejected`."""
        return self._wire.connect()

    def cookie(self, deadline: float) -> tuple[str, int]:
        """What a request beside the calls shows that we are signed in, and the session it belongs to."""
        with self._lock:
            self.service(deadline)
            return self._cookie, self.generation

    def session_ended(self, generation: int) -> None:
        """The next call signs in anew, unless that has been done since."""
        with self._lock:
            if self.generation == generation:
                self._service = None

    # --- exchanges ---

    def exchange(self, body: bytes, deadline: float, method: str) -> tuple[bytes, soap.Element | None]:
        """The answer to a request, and its SOAP body where that has been read already (faults).

        A session that has run out is renewed once: the request was not carried out then. Raises `VimFault`.
        """
        for is_last in (False, True):
            self.service(deadline)
            generation = self.generation
            status, answer = self._post(body, deadline, method)
            if status == 200:
                return answer, None
            fault = faults.of_answer(self._parsed(answer))
            if fault.name != "NotAuthenticated":
                raise fault
            self.session_ended(generation)
            if is_last:
                break
        raise PlatformFault(
            f"Endpoint {self.settings.endpoint} ends our sessions as soon as they begin. See its own log why."
        )

    def _post(self, body: bytes, deadline: float, method: str) -> tuple[int, bytes]:
        headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": soap.ACTION, "User-Agent": "Deskyard"}
        if self._cookie:
            headers["Cookie"] = self._cookie
        status, answer, cookie = self._wire.post(body, headers, deadline, is_reading=method in _READINGS)
        if cookie:
            self._cookie = cookie.partition(";")[0]
        return status, answer

    def _parsed(self, answer: bytes) -> soap.Element:
        try:
            return soap.parse(answer)
        except soap.Unreadable as error:
            raise Unreachable(
                f"Endpoint {self.settings.endpoint} answers, but not as vSphere does. Check address and port.",
                platform_words=str(error),
            ) from None

    # --- calls by pyvmomi's types ---

    def object(self, kind: Any, id: str, deadline: float) -> Any:
        """A managed object whose methods are called here, until the deadline. Its properties cannot be read."""
        return kind(id, _Stub(self, deadline))

    # --- properties ---

    def read(
        self,
        wanted: Sequence[tuple[str, Iterable[str]]],
        deadline: float,
        *,
        view: str = "",
        objects: Sequence[tuple[str, str]] = (),
        page: int = PAGE,
    ) -> Iterator[list[soap.Seen]]:
        """These properties of all in the view or of the objects named, page by page. Raises `VimFault`."""
        collector = self.service(deadline).id("propertyCollector")
        method = "RetrievePropertiesEx"
        answer = self._reading(
            soap.retrieve(collector, soap.filter_spec(wanted, view=view, objects=objects), page), deadline, method
        )
        while True:
            found, token = soap.page(answer)
            del answer
            yield found
            if not token:
                return
            answer = self._reading(soap.go_on(collector, token), deadline, "ContinueRetrievePropertiesEx")

    def objects(self, kind: str, ids: Iterable[str], paths: Iterable[str], deadline: float) -> dict[str, soap.Seen]:
        """These properties of these objects, by id. Objects that are gone are left out.

        A server refuses a whole call over one object that is gone, and names it; then the rest is asked for again.
        """
        left = list(dict.fromkeys(ids))
        paths = tuple(paths)
        found: dict[str, soap.Seen] = {}
        while left:
            now, rest = left[:PAGE], left[PAGE:]
            try:
                for seen in self.read([(kind, paths)], deadline, objects=[(kind, id) for id in now], page=0):
                    found |= {one.id: one for one in seen}
            except VimFault as fault:
                if not fault.is_a("ManagedObjectNotFound"):
                    raise
                gone = soap.text(fault.detail, "obj")
                if gone in now:
                    left = [id for id in left if id != gone]
                elif len(now) == 1:
                    left = rest
                else:
                    found |= self.objects(kind, now[: len(now) // 2], paths, deadline)
                    left = left[len(now) // 2 :]
                continue
            left = rest
        return found

    def object_seen(self, kind: str, id: str, paths: Iterable[str], deadline: float) -> soap.Seen | None:
        """One object, None if it is gone."""
        return self.objects(kind, [id], paths, deadline).get(id)

    def _reading(self, body: bytes, deadline: float, method: str) -> soap.Element:
        answer, _ = self.exchange(body, deadline, method)
        return self._parsed(answer)

    def wait(self, collector: str, version: str, page: int, deadline: float) -> tuple[str, list[soap.Update], bool]:
        """What a collector has to tell now, without waiting."""
        return soap.updates(self._reading(soap.wait(collector, version, page), deadline, "WaitForUpdatesEx"))


class _Stub(SoapAdapter.SoapStubAdapterBase):  # type: ignore[misc]
    """Lets pyvmomi's objects write their requests; they go through the client's one session."""

    def __init__(self, client: Client, deadline: float) -> None:
        super().__init__("vim.version.version11")  # vSphere 6.5
        self.requestContext: dict[str, str] = {}
        self._client = client
        self._deadline = deadline

    def InvokeMethod(self, mo: Any, info: Any, args: Any, outerStub: Any = None) -> Any:
        body = self.SerializeRequest(mo, info, args)
        answer, _ = self._client.exchange(body, self._deadline, info.wsdlName)
        try:
            return SoapAdapter.SoapResponseDeserializer(self).Deserialize(answer, info.result)
        except Exception as error:  # noqa: BLE001 - whatever pyvmomi makes of what it does not know
            # It was carried out, and what came of it has to be looked up.
            raise Unreachable(
                f"Endpoint {self._client.settings.endpoint} answered in a way that cannot be read.",
                platform_words=f"{info.wsdlName}: {type(error).__name__}: {error}"[:500],
            ) from None

    def InvokeAccessor(self, mo: Any, info: Any) -> Any:
        raise TypeError(f"{info.name} of {mo} was to be read lazily. Read it with Client.objects.")


def _service(content: soap.Element | None) -> Service:
    if content is None:
        raise Unreachable("The endpoint answers, but not as vSphere does. Check address and port.")
    refs = {
        name: (part.get("type") or "", part.text or "")
        for name, part in soap.property_values(content)
        if part.get("type")
    }
    about = soap.child(content, "about")
    return Service(
        product=soap.text(about, "name") or "VMware vSphere",
        version=soap.text(about, "version"),
        is_vcenter=soap.text(about, "apiType") != "HostAgent",
        refs=refs,
    )
