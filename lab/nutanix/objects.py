"""Objects Lite: Prism Central's small object store, which speaks S3 below `/api/prism/v4.0/objects/`.

What is known of it: access and secret key are both base64("user:password"), whatever the region; buckets are
`vmm-images` and `vmm-ovas`; multipart uploads work and parts cannot be listed (the vendor's code snippets for Objects
Lite; prism-go-client `converged/v4/images.go`). pc.7.5 was seen to refuse every object of ordinary users with
AccessDenied (packer-plugin-nutanix issue 395). The rest is S3 as Amazon describes it: signature version 4, 5 MiB at
least for every part but the last.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import tempfile
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from lxml import etree

from lab.http import Request, Response

ROOT = "/api/prism/v4.0/objects/"
BUCKETS = ("vmm-images", "vmm-ovas")
SMALLEST_PART = 5 * 1024 * 1024
LARGEST_PUT = 5 * 1024**3
MOST_PARTS = 10_000
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
UNSIGNED = "UNSIGNED-PAYLOAD"
PIECE = 1024 * 1024


class Denied(Exception):
    """An answer in S3's words."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


@dataclass(slots=True)
class Upload:
    """A multipart upload under way."""

    bucket: str
    key: str
    parts: dict[int, tuple[str, Path]] = field(default_factory=dict)
    """Number -> ETag, file."""


class ObjectStore:
    """Files in a temporary folder: uploads do not outlive the process."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="lab-objects-")
        self.objects: dict[tuple[str, str], Path] = {}
        self.uploads: dict[str, Upload] = {}
        self.forbids = False
        """Whoever is no administrator may do nothing."""
        self.room: int | None = None
        """Bytes that there is room for; None: enough."""
        self.lists = True
        """Whether it can tell what is there."""

    def stop(self) -> None:
        self._home.cleanup()

    def place(self) -> BinaryIO:
        return tempfile.TemporaryFile(dir=self._home.name)

    @property
    def used(self) -> int:
        files = [path for upload in self.uploads.values() for _, path in upload.parts.values()]
        return sum(path.stat().st_size for path in (*self.objects.values(), *files))

    # --- a request ----------------------------------------------------------------------------------------------------

    def handle(self, request: Request, user: str, password: str) -> Response:
        try:
            digest = _digest(request)
            _require_signed(request, b64encode(f"{user}:{password}".encode()).decode(), digest)
            if self.forbids:
                raise Denied(403, "AccessDenied", "Access Denied")
            return self._serve(request)
        except Denied as denied:
            body = f"<Error><Code>{denied.code}</Code><Message>{escape(denied.message)}</Message></Error>"
            return Response(denied.status, body.encode(), {"Content-Type": "application/xml"})

    def _serve(self, request: Request) -> Response:
        bucket, _, key = request.path.removeprefix(ROOT).partition("/")
        if bucket not in BUCKETS:
            raise Denied(404, "NoSuchBucket", "The specified bucket does not exist")
        match request.method, bool(key), request.query:
            case "GET", False, query:
                return self._list(bucket, query)
            case "POST", True, {"uploads": _}:
                return self._begin(bucket, key)
            case "POST", True, {"uploadId": id}:
                return self._complete(id, bucket, key, request.body)
            case "PUT", True, {"uploadId": id, "partNumber": number}:
                return self._part(self._upload(id, bucket, key), int(number), request)
            case "PUT", True, query if not query:
                etag, path = self._keep(request, LARGEST_PUT)
                self._enter(bucket, key, path)
                return Response(200, b"", {"ETag": etag})
            case "DELETE", True, {"uploadId": id}:
                self._forget(self._upload(id, bucket, key))
                del self.uploads[id]
                return Response(204)
            case "DELETE", True, query if not query:
                if (bucket, key) in self.objects:
                    self.objects.pop((bucket, key)).unlink()
                return Response(204)
        raise Denied(501, "NotImplemented", "A header you provided implies functionality that is not implemented.")

    def _begin(self, bucket: str, key: str) -> Response:
        id = secrets.token_urlsafe(24)
        self.uploads[id] = Upload(bucket, key)
        told = f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><UploadId>{id}</UploadId>"
        return _xml("InitiateMultipartUploadResult", told)

    def _upload(self, id: str, bucket: str, key: str) -> Upload:
        upload = self.uploads.get(id)
        if upload is None or (upload.bucket, upload.key) != (bucket, key):
            raise Denied(404, "NoSuchUpload", "The specified multipart upload does not exist.")
        return upload

    def _part(self, upload: Upload, number: int, request: Request) -> Response:
        if not 1 <= number <= MOST_PARTS:
            raise Denied(400, "InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive")
        etag, path = self._keep(request, LARGEST_PUT)
        if number in upload.parts:
            upload.parts[number][1].unlink()
        upload.parts[number] = (etag, path)
        return Response(200, b"", {"ETag": etag})

    def _keep(self, request: Request, most: int) -> tuple[str, Path]:
        """ETag and file of a body."""
        path, digest, size = Path(self._home.name) / secrets.token_hex(16), hashlib.md5(usedforsecurity=False), 0
        with path.open("wb") as file:
            for piece in _pieces(request):
                file.write(piece)
                digest.update(piece)
                size += len(piece)
        is_full = self.room is not None and self.used + size > self.room
        if is_full or size > most:
            path.unlink()
            raise Denied(507, "InsufficientStorage", "Full") if is_full else Denied(400, "EntityTooLarge")
        return f'"{digest.hexdigest()}"', path

    def _complete(self, id: str, bucket: str, key: str, body: bytes) -> Response:
        upload, told = self._upload(id, bucket, key), _parts(body)
        if not told or [number for number, _ in told] != sorted({number for number, _ in told}):
            raise Denied(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
        for number, etag in told:
            if number not in upload.parts or upload.parts[number][0].strip('"') != etag.strip('"'):
                raise Denied(400, "InvalidPart", f"Part {number} could not be found.")
        files = [upload.parts[number][1] for number, _ in told]
        if any(path.stat().st_size < SMALLEST_PART for path in files[:-1]):
            raise Denied(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
        whole = Path(self._home.name) / secrets.token_hex(16)
        with whole.open("wb") as file:
            for path in files:
                with path.open("rb") as part:
                    while piece := part.read(PIECE):
                        file.write(piece)
        self._forget(upload)
        del self.uploads[id]
        self._enter(bucket, key, whole)
        return _xml("CompleteMultipartUploadResult", f"<Key>{escape(key)}</Key><ETag>&quot;x-{len(told)}&quot;</ETag>")

    def _enter(self, bucket: str, key: str, path: Path) -> None:
        if (bucket, key) in self.objects:
            self.objects[bucket, key].unlink()
        self.objects[bucket, key] = path

    def _forget(self, upload: Upload) -> None:
        for _, path in upload.parts.values():
            path.unlink()
        upload.parts.clear()

    def _list(self, bucket: str, query: Mapping[str, str]) -> Response:
        if not self.lists:
            raise Denied(501, "NotImplemented", "Not implemented")
        prefix = query.get("prefix", "")
        if "uploads" in query:
            found = [
                f"<Upload><Key>{escape(one.key)}</Key><UploadId>{id}</UploadId></Upload>"
                for id, one in self.uploads.items()
                if one.bucket == bucket and one.key.startswith(prefix)
            ]
            return _xml("ListMultipartUploadsResult", "<IsTruncated>false</IsTruncated>" + "".join(found))
        keys = sorted(key for at, key in self.objects if at == bucket and key.startswith(prefix))
        told = "".join(f"<Contents><Key>{escape(key)}</Key></Contents>" for key in keys)
        return _xml("ListBucketResult", f"<IsTruncated>false</IsTruncated><KeyCount>{len(keys)}</KeyCount>{told}")


def _xml(kind: str, inside: str) -> Response:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<{kind} xmlns="{NAMESPACE}">{inside}</{kind}>'
    return Response(200, body.encode(), {"Content-Type": "application/xml"})


def _parts(body: bytes) -> list[tuple[int, str]]:
    try:
        root = etree.fromstring(body, etree.XMLParser(resolve_entities=False, no_network=True))
        return [
            (int(part.findtext("{*}PartNumber") or 0), part.findtext("{*}ETag") or "")
            for part in root.findall("{*}Part")
        ]
    except (etree.XMLSyntaxError, ValueError) as error:
        raise Denied(400, "MalformedXML", "The XML you provided was not well-formed") from error


def _pieces(request: Request) -> list[bytes]:
    """The body; a large one lies in a file, and parts are not so large that one would not fit."""
    if request.file is None:
        return [request.body]
    request.file.seek(0)
    return list(iter(lambda: request.file.read(PIECE) if request.file else b"", b""))


# --- signatures ------------------------------------------------------------------------------------------------------

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>.+)/(?P<day>\d{8})/(?P<region>[^/]+)/s3/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


def _digest(request: Request) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(request):
        digest.update(piece)
    return digest.hexdigest()


def _require_signed(request: Request, secret: str, digest: str) -> None:
    """Signature version 4 (Amazon S3 API reference, "Authenticating Requests: Using the Authorization Header")."""
    found = _AUTHORIZATION.fullmatch(request.headers.get("Authorization") or "")
    told = request.headers.get("x-amz-content-sha256") or ""
    when = request.headers.get("x-amz-date") or ""
    if found is None or not told or not when.startswith(found["day"]):
        raise Denied(403, "AccessDenied", "Access Denied")
    if found["key"] != secret:
        raise Denied(403, "InvalidAccessKeyId", "The access key does not exist in our records.")
    if told not in (UNSIGNED, digest):
        raise Denied(400, "XAmzContentSHA256Mismatch", "The provided header does not match what was computed.")
    names = found["headers"].split(";")
    if "host" not in names:
        raise Denied(403, "AccessDenied", "There were headers present in the request which were not signed")
    parts = urlsplit(request.raw_path)
    query = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in _query(parts.query))
    canonical = "\n".join((
        request.method,
        quote(unquote(parts.path), safe="/-_.~"),
        "&".join(f"{name}={value}" for name, value in query),
        *(f"{name}:{' '.join((request.headers.get(name) or '').split())}" for name in names),
        "",
        found["headers"],
        told,
    ))  # fmt: skip
    scope = f"{found['day']}/{found['region']}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", when, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{secret}".encode()
    for part in (found["day"], found["region"], "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    if not hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), found["signature"]):
        raise Denied(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")


def _query(text: str) -> list[tuple[str, str]]:
    return parse_qsl(text, keep_blank_values=True)
