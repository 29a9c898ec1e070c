"""Bytes of disks over HTTPS, beside the calls: parts of files on datastores, whole disks by the addresses of a lease.

A lease of a vCenter names hosts, whose certificates are others than the vCenter's. vSphere tells their thumbprints over
the connection that we trust, and they are compared on each connection before anything is sent (API reference,
HttpNfcLeaseDeviceUrl.sslThumbprint). Where it tells none, what is registered for the endpoint holds.
"""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode, urlsplit

from connectors.errors import CertificateRejected, ConnectorError
from connectors.esxi.client import Client
from connectors.esxi.transport import CONNECT_S, Connection, tls_context
from disks.errors import DiskError, SinkLost, SinkRefused, SourceLost, SourceRefused
from disks.raw import write_error

SILENT_S = 60.0
"""How long the other end may say nothing."""
SIGN_IN_S = 30.0
PIECE = 1 << 20
STREAM = "application/x-vnd.vmware-streamVmdk"
_TOTAL = re.compile(r"bytes (\d+)-(\d+)/(\d+)$")


@dataclass(frozen=True, slots=True)
class DeviceUrl:
    """Where a lease gives a disk out, or takes it in."""

    key: str
    """"/vm-42/ParaVirtualSCSIController0:0"."""
    url: str
    thumbprint: str
    is_disk: bool


def told(error: ConnectorError, what: str, *, is_source: bool) -> DiskError:
    """What a connector would say, as an end of a copy says it."""
    kinds = (SourceLost, SourceRefused) if is_source else (SinkLost, SinkRefused)
    return kinds[0 if error.retry else 1](f"{what}: {error.message}")


# --- parts of files --------------------------------------------------------------------------------------------------


class Parts:
    """Reads parts of one file on a datastore. Safe among threads."""

    def __init__(self, client: Client, file: str, datacenter: str) -> None:
        """`file` is "[datastore] folder/name", `datacenter` the path of the datacenter in the inventory."""
        store, _, path = file.partition("] ")
        self._name = file
        self._client = client
        query = urlencode({"dcPath": datacenter, "dsName": store.removeprefix("[")}, quote_via=quote)
        self._path = f"/folder/{quote(path)}?{query}"
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._is_closed = False

    def read(self, offset: int, length: int, size: int) -> bytes:
        """Exactly so many bytes of a file that has so many. Raises `SourceLost`, `SourceRefused`."""
        for is_last in (False, True):
            try:
                cookie, generation = self._client.cookie(time.monotonic() + SIGN_IN_S)
                with self._connection() as connection:
                    data = self._ask(connection, offset, length, size, cookie)
            except ConnectorError as error:
                raise told(error, f"Cannot read {self._name}", is_source=True) from None
            except _Again:
                self._client.session_ended(generation)
            except (OSError, HTTPException, ValueError) as error:
                if is_last:  # once more, since a kept connection may have ended meanwhile: reading changes nothing
                    raise SourceLost(
                        f"The connection ended while {self._name} was read ({_words(error)}). It is begun anew."
                    ) from error
            else:
                return data
        raise SourceRefused(f"The account may not read {self._name}. Give it the right Datastore.Browse there.")

    def _ask(self, connection: Connection, offset: int, length: int, size: int, cookie: str) -> bytes:
        headers = {"Cookie": cookie, "Range": f"bytes={offset}-{offset + length - 1}", "User-Agent": "Deskyard"}
        connection.request("GET", self._path, headers=headers)
        response = connection.getresponse()
        if response.status == 206:
            found = _TOTAL.match(response.getheader("Content-Range") or "")
            if found is None or (int(found[1]), int(found[3])) != (offset, size):
                raise SourceRefused(f"{self._name} is not the disk: it has another size. Nothing of it was used.")
            data = response.read()
            if len(data) != length:
                raise ValueError("the answer was cut short")
            return data
        connection.close()
        if response.status == 401:
            raise _Again
        if response.status == 200:
            raise SourceRefused(f"{self._client.settings.endpoint} gives no parts of {self._name}, only all of it.")
        if response.status in (403, 404):
            raise SourceRefused(f"{self._name} cannot be read: HTTP {response.status}. Check the account's rights.")
        raise SourceLost(f"{self._name} cannot be read now: HTTP {response.status}. It is tried again.")

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._client.connect()
            connection.be_patient(SILENT_S)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if not self._is_closed and connection.sock is not None:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle, self._is_closed = self._idle, [], True
        for connection in idle:
            connection.close()


class _Again(Exception):
    """We are not signed in any more."""


# --- whole disks -----------------------------------------------------------------------------------------------------


def fetch(client: Client, source: DeviceUrl, to: Path) -> Iterator[int]:
    """A whole image into a file, a piece a step; how many bytes so far. Raises `SourceLost`, `SourceRefused`,
    `OutOfSpace`."""
    try:
        with _reaching(client, source) as (connection, path), to.open("wb") as file:
            connection.request("GET", path, headers={"User-Agent": "Deskyard"})
            response = connection.getresponse()
            if response.status != 200:
                raise SourceLost(f"{_where(client)} does not give the disk out: HTTP {response.status}.")
            yield from _poured(response, file, to)
    except ConnectorError as error:
        raise told(error, "The disk cannot be fetched", is_source=True) from None
    except (OSError, HTTPException, ValueError) as error:
        raise SourceLost(
            f"The connection to {_where(client)} ended while a disk was fetched ({_words(error)}). It is begun anew."
        ) from error


def _poured(response: HTTPResponse, file: BinaryIO, path: Path) -> Iterator[int]:
    so_far = 0
    while data := response.read(PIECE):
        try:
            file.write(data)
        except OSError as error:
            raise write_error(error, path) from error
        so_far += len(data)
        yield so_far
    if response.length:  # an answer that tells its length and ends before is no error to http.client
        raise ValueError("the answer was cut short")


def send(client: Client, source: Path, to: DeviceUrl) -> Iterator[int]:
    """A whole image out of a file, a piece a step; how many bytes so far. Raises `SinkLost`, `SinkRefused`."""
    headers = {"Content-Type": STREAM, "Content-Length": str(source.stat().st_size), "User-Agent": "Deskyard"}
    try:
        with _reaching(client, to) as (connection, path), source.open("rb") as file:
            connection.putrequest("POST", path)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            while data := file.read(PIECE):
                connection.send(data)
                yield file.tell()
            response = connection.getresponse()
            response.read()
            if response.status not in (200, 201, 204):
                raise SinkLost(f"{_where(client)} does not take the disk: HTTP {response.status}. It is begun anew.")
    except ConnectorError as error:
        raise told(error, "The disk cannot be sent", is_source=False) from None
    except (OSError, HTTPException, ValueError) as error:
        raise SinkLost(
            f"The connection to {_where(client)} ended while a disk was sent ({_words(error)}). It is begun anew."
        ) from error


@contextmanager
def _reaching(client: Client, device: DeviceUrl) -> Iterator[tuple[Connection, str]]:
    """A connection to where the address leads, and what to ask for there."""
    parts = urlsplit(device.url)
    pin = re.sub(r"[^0-9a-f]", "", device.thumbprint.lower())
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    connection = client.connect() if parts.hostname in (None, "*") else _to_host(client, parts, pin)
    try:
        connection.be_patient(SILENT_S)
        yield connection, path
    finally:
        with suppress(OSError):
            connection.close()


def _to_host(client: Client, parts: Any, pin: str) -> Connection:
    """Raises `CertificateRejected`, OSError."""
    if pin:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the certificate itself is compared, before anything is sent
    elif client.settings.pin:
        raise CertificateRejected(
            f"{_where(client)} names the host {parts.hostname} for the disk and does not tell its certificate, and "
            "only a fingerprint is registered. Register the CA certificate instead."
        )
    else:
        context = tls_context(client.settings)
    connection = Connection(parts.hostname, parts.port or 443, timeout=CONNECT_S, context=context)
    try:
        connection.connect()
        connection.require_pin(pin)
    except ssl.SSLCertVerificationError as error:
        connection.close()
        raise CertificateRejected(
            f"Host {parts.hostname} shows another certificate than the one that {_where(client)} tells of it. Nothing "
            "was sent to it.",
            platform_words=str(error),
        ) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _where(client: Client) -> str:
    return client.settings.endpoint


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
