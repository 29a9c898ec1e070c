"""Prism Central's refusals -> our errors, in one table.

Statuses and bodies: Prism v4 error model (`vmm.v4.error.ErrorResponse` with a list of `AppMessage`, or a
`SchemaValidationError` object); 401 and 403 come without JSON, 501 with an empty body. The words are for what has no
code of its own: the tasks' messages come from the hypervisor's own service.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import requests

from connectors.errors import (
    Busy,
    CapacityExhausted,
    CertificateRejected,
    Conflict,
    ConnectorError,
    CredentialsRejected,
    NotFound,
    PlatformFault,
    Unreachable,
    Unsupported,
)

ETAG_MISMATCH = "VM_ETAG_MISMATCH"
"""A stale ETag may show only as a failed task (terraform-provider-nutanix, pull request 1104)."""

RATE_LIMIT = "RATE_LIMIT_EXCEEDED"
"""An error group that means 429 whatever the status is (prism-go-client takes it so)."""

BY_STATUS: dict[int, type[ConnectorError]] = {
    400: PlatformFault,
    401: CredentialsRejected,
    403: Unsupported,
    404: NotFound,
    405: Unsupported,
    408: Busy,
    409: Conflict,
    412: Conflict,
    422: PlatformFault,
    428: Conflict,
    429: Busy,
    500: PlatformFault,
    501: Unsupported,
    502: Busy,
    503: Busy,
    504: Busy,
}

BY_WORDS: tuple[tuple[re.Pattern[str], type[ConnectorError]], ...] = tuple(
    (re.compile(words, re.IGNORECASE), kind)
    for words, kind in (
        (rf"{RATE_LIMIT}|too many requests", Busy),
        (r"ETAG_MISMATCH|PLAT-1000[45]", Conflict),
        (
            r"NoHostResources|(not enough|insufficient|no host has enough) [a-z ]*(memory|cpu|resources)",
            CapacityExhausted,
        ),
        (
            r"(no|out of|not enough|insufficient) (free )?(storage )?(space|capacity)|storage container .* full",
            CapacityExhausted,
        ),
        (r"memory_?(exhausted|overcommit_?failed)|OUT_OF_(MEMORY|SPACE)|INSUFFICIENT_[A-Z]+", CapacityExhausted),
        (r"(operation|task|another) .*(in progress|already running)|is locked|_BUSY\b", Busy),
        (r"NOT_FOUND|does not exist|not found", NotFound),
        (r"INVALID_(POWER_)?STATE|already (powered )?(on|off)\b|invalid state", Conflict),
        (r"PERMISSION_DENIED|not authorized|access denied", Unsupported),
        (r"NOT_SUPPORTED|not supported", Unsupported),
    )
)
"""Looked at in order, for codes, groups and messages of a body or a failed task."""

ADVICE: dict[type[ConnectorError], str] = {
    Unreachable: "Check the address, port 9440 and the network.",
    CertificateRejected: "Check that the CA certificate or fingerprint in the settings is Prism Central's own. Nothing "
    "was sent to it.",
    CredentialsRejected: "Check user and password or the API key, and whether the account is locked.",
    Busy: "It will be tried again.",
    NotFound: "It is not there any more.",
    Conflict: "It is not in the state it was thought to be in.",
    CapacityExhausted: "The cluster has no room for it: free storage or memory, or use another cluster.",
    Unsupported: "This Prism Central or the account's role does not allow it.",
    PlatformFault: "Prism Central's own words are kept with the operation.",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a refused request or a failed task told."""

    status: int
    """0 for a task."""
    words: str = ""
    """Codes, groups and messages, one a line."""
    is_entity: bool = False
    """Whether the body is an application error: a 404 without one means the path, not the thing."""
    retry_after_s: float | None = None


def kind_of(refusal: Refusal) -> type[ConnectorError]:
    """Which of our errors a refusal is: 401, 403 and 429 mean what they say, else the words tell more."""
    plain = BY_STATUS.get(refusal.status)
    if plain in (CredentialsRejected, Busy) or refusal.status in (403, 501):
        return plain or PlatformFault
    if refusal.status == 404:
        return NotFound if refusal.is_entity else Unsupported
    for pattern, kind in BY_WORDS:
        if pattern.search(refusal.words):
            return kind
    return plain or PlatformFault


def ours(refusal: Refusal, doing: str, endpoint: str, secrets: Sequence[str] = ()) -> ConnectorError:
    """The refusal in our words. `doing` is what failed, as a phrase: "cloning the template"."""
    kind = kind_of(refusal)
    status = f"HTTP {refusal.status}" if refusal.status else "task failed"
    words = scrubbed(f"{status}: {refusal.words}".strip(": \n"), secrets)
    message = f"{doing[:1].upper()}{doing[1:]} failed at {endpoint}. {ADVICE[kind]}"
    return kind(message, platform_words=words, retry_after_s=refusal.retry_after_s)


_CERTIFICATE = re.compile(r"certificate|fingerprint|hostname .* doesn't match|self.signed", re.IGNORECASE)


def of_the_line(
    error: requests.RequestException, doing: str, endpoint: str, secrets: Sequence[str] = ()
) -> ConnectorError:
    """What went wrong before an answer stood complete."""
    words = scrubbed(str(error), secrets)
    if isinstance(error, requests.exceptions.SSLError) and _CERTIFICATE.search(words):
        text = (
            f"Prism Central {endpoint} shows a certificate that is not the trusted one. {ADVICE[CertificateRejected]}"
        )
        return CertificateRejected(text, platform_words=words)
    what = "gave no answer in time" if isinstance(error, requests.exceptions.Timeout) else "broke the connection off"
    if isinstance(error, requests.exceptions.ConnectionError) and "refused" in words:
        what = "refuses connections"
    return Unreachable(f"Prism Central {endpoint} {what} while {doing}. {ADVICE[Unreachable]}", platform_words=words)


def scrubbed(words: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        words = words.replace(secret, "•••")
    return words[:2000]
