"""Objects Lite, Prism Central's own small object store: the only way by which the v4 API takes an image's bytes in.

It speaks S3 at `/api/prism/v4.0/objects/`; access and secret key are both base64("user:password"), images lie in the
bucket `vmm-images` (the vendor's code snippets for Objects Lite; prism-go-client `converged/v4/images.go`, which signs
for region us-east-1 whatever the place). An account of an API key has no such keys.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote
from xml.sax.saxutils import escape

import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from lxml import etree

from connectors.errors import (
    Busy,
    CapacityExhausted,
    ConnectorError,
    CredentialsRejected,
    NotFound,
    PlatformFault,
    Unreachable,
    Unsupported,
)
from connectors.nutanix.client import Client
from connectors.nutanix.settings import NutanixSettings

ROOT = "/api/prism/v4.0/objects"
BUCKET = "vmm-images"
REGION = "us-east-1"
TRIES = 4
"""How often a request is sent whose connection breaks or which is answered by "later"."""
CALL_S = 120.0
"""How long one may take, a part's bytes included."""
LATER = {408, 425, 429, 500, 502, 503, 504}
FULL = {"QuotaExceeded", "EntityTooLarge", "InsufficientStorage", "StorageFull", "ServiceQuotaExceeded"}
KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}


@dataclass(frozen=True, slots=True)
class Told:
    """What S3 answered."""

    status: int
    headers: Mapping[str, str]
    root: etree._Element | None
    """Of the XML, if it is any."""

    @property
    def code(self) -> str:
        """Of an error; empty if it is none. One may come with status 200."""
        if self.root is None or etree.QName(self.root).localname != "Error":
            return "" if self.status < 300 else str(self.status)
        return self.root.findtext("{*}Code") or self.root.findtext("Code") or str(self.status)

    def texts(self, path: str) -> list[str]:
        return [] if self.root is None else [found.text or "" for found in self.root.iterfind(path)]


class ObjectStore:
    """Requests in the name of one account, on a client that is its alone."""

    def __init__(self, client: Client, settings: NutanixSettings) -> None:
        """Raises `Unsupported` for an account that has no keys."""
        if settings.sign_in != "password":
            raise Unsupported(
                f"Disks are sent to Prism Central {settings.endpoint} through its object store, which knows no API "
                "keys. Register it with a user and a password to bring machines up on it."
            )
        secret = base64.b64encode(f"{settings.user}:{settings.password}".encode()).decode()
        self._signer = S3SigV4Auth(Credentials(secret, secret), "s3", REGION)
        self._client = client
        self._settings = settings

    def close(self) -> None:
        self._client.close()

    # --- uploads ------------------------------------------------------------------------------------------------------

    def begin(self, key: str, deadline: float) -> str:
        """The id of a new upload."""
        ids = self._ask("POST", key, {"uploads": ""}, b"", deadline).texts("{*}UploadId")
        if not ids:
            raise PlatformFault(f"The object store of {self._settings.endpoint} began an upload and named none.")
        return ids[0]

    def put(self, key: str, upload: str, number: int, data: bytes, deadline: float) -> str:
        """A part; its ETag. The same part again replaces it."""
        told = self._ask("PUT", key, {"partNumber": str(number), "uploadId": upload}, data, deadline)
        return told.headers.get("ETag", "")

    def complete(self, key: str, upload: str, etags: Mapping[int, str], deadline: float) -> None:
        """All parts as one object."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for number, etag in sorted(etags.items())
        )
        body = f'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{parts}</CompleteMultipartUpload>'
        try:
            self._ask("POST", key, {"uploadId": upload}, body.encode(), deadline)
        except NotFound:
            # Asked a second time, after an answer that was lost: then the object is there.
            if key not in self.keys(key, deadline):
                raise

    def abort(self, key: str, upload: str, deadline: float) -> None:
        """Gone already is fine."""
        self._drop(key, {"uploadId": upload}, deadline)

    def delete(self, key: str, deadline: float) -> None:
        """Gone already is fine."""
        self._drop(key, {}, deadline)

    def _drop(self, key: str, query: Mapping[str, str], deadline: float) -> None:
        try:
            self._ask("DELETE", key, query, b"", deadline)
        except NotFound:
            return

    def keys(self, prefix: str, deadline: float) -> list[str]:
        return self._ask("GET", "", {"list-type": "2", "prefix": prefix}, b"", deadline).texts("{*}Contents/{*}Key")

    def uploads(self, prefix: str, deadline: float) -> list[tuple[str, str]]:
        """Key and id of those that were begun and not completed."""
        told = self._ask("GET", "", {"prefix": prefix, "uploads": ""}, b"", deadline)
        keys, ids = told.texts("{*}Upload/{*}Key"), told.texts("{*}Upload/{*}UploadId")
        return [pair for pair in zip(keys, ids, strict=True) if pair[0].startswith(prefix)]

    def remove(self, prefix: str, deadline: float) -> int:
        """Nothing of these names stays; how many there were. A store that cannot tell what it holds is left as it is:
        what was uploaded in whole is deleted by whoever made an image of it."""
        try:
            uploads, keys = self.uploads(prefix, deadline), self.keys(prefix, deadline)
        except _CannotTell:
            return 0
        for key, upload in uploads:
            self.abort(key, upload, deadline)
        for key in keys:
            self.delete(key, deadline)
        return len(uploads) + len(keys)

    # --- a request ----------------------------------------------------------------------------------------------------

    def _ask(self, method: str, key: str, query: Mapping[str, str], data: bytes, deadline: float) -> Told:
        """Signed anew each time it is sent."""
        for attempt in range(1, TRIES + 1):
            is_last = attempt == TRIES
            try:
                told = self._send(method, key, query, data, min(deadline, time.monotonic() + CALL_S))
            except Unreachable as error:
                if is_last or error.kind != Unreachable.kind:
                    raise
                continue
            if told.status in LATER and told.code not in FULL and not is_last:
                time.sleep(min(0.2 * 4**attempt, 5.0, max(0.0, deadline - time.monotonic())))
                continue
            if told.code:
                raise self._error(told)
            return told
        raise AssertionError("the last round always ends")  # pragma: no cover

    def _send(self, method: str, key: str, query: Mapping[str, str], data: bytes, deadline: float) -> Told:
        path = f"{ROOT}/{BUCKET}" + (f"/{quote(key, safe='/-_.~')}" if key else "")
        text = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))
        url = f"{path}?{text}" if text else path
        request = AWSRequest(method, f"https://{self._settings.endpoint}{url}", data=data)
        self._signer.add_auth(request)
        headers = {"Content-Type": "application/octet-stream", **dict(request.headers.items())}
        answer = self._client.plain(
            method, url, f"{method} prism/objects", deadline, headers=headers, data=data, doing="sending a disk"
        )
        return Told(answer.status_code, dict(answer.headers), _xml(answer))

    def _error(self, told: Told) -> ConnectorError:
        where, words = f"The object store of Prism Central {self._settings.endpoint}", f"{told.status} {told.code}"
        if told.code in FULL or told.status == 507:
            return CapacityExhausted(
                f"{where} has no room for the disk. Free room on Prism Central, or bring the machine up elsewhere.",
                platform_words=words,
            )
        if told.code in KEYS or told.status == 401:
            return CredentialsRejected(f"{where} refuses the account. Check user and password.", platform_words=words)
        if told.code == "NoSuchUpload":
            return NotFound(
                f"{where} does not know the upload any more. It has to be begun anew.", platform_words=words
            )
        if told.code in ("NotImplemented", "MethodNotAllowed"):
            return _CannotTell(f"{where} does not know what is asked of it.", platform_words=words)
        if told.status == 403:
            return Unsupported(
                f"{where} does not let this account put images there. Some releases of Prism Central (pc.7.5) let only "
                "its own administrator do so: register it with that account, or give the account's role the right.",
                platform_words=words,
            )
        if told.status in LATER:
            return Busy(f"{where} is busy. It will be tried again.", platform_words=words)
        if told.status == 404:
            return Unsupported(
                f"Prism Central {self._settings.endpoint} has no object store (Objects Lite), through which disks are "
                "sent. Bring the machine up on another hypervisor, or update Prism Central.",
                platform_words=words,
            )
        return PlatformFault(f"{where} refuses the disk. Its own words are kept with the run.", platform_words=words)


class _CannotTell(Unsupported):
    """S3 has the request, this store has not."""


def _xml(answer: requests.Response) -> etree._Element | None:
    if not answer.content.lstrip().startswith(b"<"):
        return None
    try:
        return etree.fromstring(answer.content, etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.XMLSyntaxError:
        return None
