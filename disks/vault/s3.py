"""A store in a bucket of S3, or of what speaks like it (MinIO, Ceph, Garage)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from disks.errors import DiskError, NotFound, OutOfSpace, Refused, SinkRefused, StoreLost
from disks.vault.store import require_name

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

Answer = TypeVar("Answer")

MISSING = {"NoSuchKey", "404", "NotFound"}
FULL = {
    "QuotaExceeded",
    "EntityTooLarge",
    "InsufficientStorage",
    "507",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
}
FORBIDDEN = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "MethodNotAllowed", "405", "InvalidObjectState"}
WRONG = {
    "NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidBucketName", "PermanentRedirect",
    "AuthorizationHeaderMalformed", "ExpiredToken", "InvalidToken",
}  # fmt: skip
PAGE = 1000
"""Names in one answer: as many as S3 gives."""
ASKERS = 16
"""Questions at once: each is a way there and back."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where a bucket is, and who asks."""

    name: str
    endpoint: str = ""
    """Empty: Amazon's own."""
    region: str = ""
    access_key: str = ""
    secret_key: str = field(repr=False, default="")
    prefix: str = ""
    """Everything of the vault has this before its name; ends with `/` unless empty."""
    authorities: str = ""
    """A file of trusted certificates, for a server with one of its own."""


class S3Store:
    """Objects are objects. The bucket must be one that shows at once what was put, as S3 itself does since 2020."""

    def __init__(self, bucket: Bucket) -> None:
        """Asks nothing yet."""
        self._bucket = bucket
        self._client: S3Client = boto3.session.Session().client(
            "s3",
            endpoint_url=bucket.endpoint or None,
            region_name=bucket.region or "us-east-1",
            aws_access_key_id=bucket.access_key or None,
            aws_secret_access_key=bucket.secret_key or None,
            verify=bucket.authorities or None,
            config=Config(
                connect_timeout=10,
                read_timeout=60,
                retries={"mode": "standard", "total_max_attempts": 4},
                max_pool_connections=ASKERS + 4,
                # A bucket as host name needs a name server that knows it; few but Amazon's have one.
                s3={"addressing_style": "path" if bucket.endpoint else "auto"},
                # Checksums of a kind that older servers refuse; ours are in the names.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def put(self, name: str, content: bytes) -> None:
        self._ask(
            "write", partial(self._client.put_object, Bucket=self._bucket.name, Key=self._key(name), Body=content)
        )

    def get(self, name: str) -> bytes:
        def read() -> bytes:
            return self._client.get_object(Bucket=self._bucket.name, Key=self._key(name))["Body"].read()

        return self._ask("read", read, name)

    def exists(self, name: str) -> bool:
        try:
            self._ask("read", partial(self._client.head_object, Bucket=self._bucket.name, Key=self._key(name)), name)
        except NotFound:
            return False
        return True

    def present(self, names: Collection[str]) -> set[str]:
        with ThreadPoolExecutor(ASKERS, thread_name_prefix="s3") as pool:
            wanted = list(names)
            return {name for name, is_there in zip(wanted, pool.map(self.exists, wanted), strict=True) if is_there}

    def list(self, prefix: str) -> Iterator[str]:
        if prefix:
            require_name(prefix.rstrip("/"))
        token = ""
        while True:
            more = {"ContinuationToken": token} if token else {}
            page = self._ask(
                "read",
                partial(
                    self._client.list_objects_v2,
                    Bucket=self._bucket.name,
                    Prefix=self._bucket.prefix + prefix,
                    MaxKeys=PAGE,
                    **more,  # type: ignore[arg-type]
                ),
            )
            for found in page.get("Contents", []):
                yield found["Key"].removeprefix(self._bucket.prefix)
            token = page.get("NextContinuationToken", "")
            if not token:
                return

    def delete(self, name: str) -> None:
        self._ask("write", partial(self._client.delete_object, Bucket=self._bucket.name, Key=self._key(name)))

    def move(self, name: str, new_name: str) -> None:
        """A copy made by the server, then a deletion."""
        copy = partial(
            self._client.copy_object,
            Bucket=self._bucket.name,
            Key=self._key(new_name),
            CopySource={"Bucket": self._bucket.name, "Key": self._key(name)},
        )
        self._ask("write", copy, name)
        self.delete(name)

    def tidy(self) -> None:
        """Nothing: what is half sent is never kept."""

    def close(self) -> None:
        self._client.close()

    def _key(self, name: str) -> str:
        return self._bucket.prefix + require_name(name)

    def _ask(self, verb: str, question: Callable[[], Answer], name: str = "") -> Answer:
        try:
            return question()
        except ClientError as error:
            raise self._error(error, verb, name) from error
        except BotoCoreError as error:
            raise StoreLost(
                f"The vault's bucket {self._bucket.name} does not answer. Check its address and the network."
            ) from error

    def _error(self, error: ClientError, verb: str, name: str) -> DiskError:
        code, where = str(error.response.get("Error", {}).get("Code", "")), f"The vault's bucket {self._bucket.name}"
        if code in MISSING and name:
            return NotFound(f"{name} is not in the bucket {self._bucket.name}. Read the list again.")
        if code in FULL:
            return OutOfSpace(f"{where} is full. Raise its quota, or delete points and collect.")
        if code in FORBIDDEN:
            if verb == "read":
                return Refused(f"{where} may not be read. Check the account's rights.")
            return SinkRefused(f"{where} is read-only for us. Check the account's rights.")
        if code in WRONG or code in MISSING:
            return Refused(f"{where} cannot be used ({code}). Check its name, region and the account's keys.")
        return StoreLost(f"{where} fails ({code}). Try again later, or ask whoever runs it.")
