"""What can go wrong at a hypervisor, grouped by what the broker does next.

A connector maps its platform's errors to these in one table and raises nothing else. `message` is for people
(what failed, on what, what to do) and never holds a secret; `platform_words` keeps the platform's own words for
administrators and is never shown to end users.
"""

from __future__ import annotations


class ConnectorError(Exception):
    """Base of all; never raised itself."""

    kind = "fault"
    retry = False
    """Whether the same order may succeed later without anybody changing anything."""
    loses_endpoint = False
    """Whether the whole endpoint is concerned, not the one order."""

    def __init__(self, message: str, *, platform_words: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.platform_words = platform_words
        self.retry_after_s = retry_after_s


class Unreachable(ConnectorError):
    """No answer in time, refused, wrong certificate, connection lost: retry with back-off, route around meanwhile."""

    kind = "unreachable"
    retry = True
    loses_endpoint = True


class CertificateRejected(Unreachable):
    """The endpoint showed a certificate that is not the trusted or pinned one. Nothing was sent to it."""

    kind = "certificate_rejected"
    retry = False


class CredentialsRejected(ConnectorError):
    """The platform refused the account: stop, tell the administrator, never hammer it into a lock-out."""

    kind = "credentials_rejected"
    loses_endpoint = True


class Busy(ConnectorError):
    """The platform asks to come back later: retry with back-off, lower the budget."""

    kind = "busy"
    retry = True


class HostDown(ConnectorError):
    """The one host that can carry it out does not answer, while others of the endpoint do: retry with back-off."""

    kind = "host_down"
    retry = True


class NotFound(ConnectorError):
    """The object is not there: reconcile."""

    kind = "not_found"


class Conflict(ConnectorError):
    """The object is not what we thought (other identity or stamp, changed meanwhile): re-read before anything else."""

    kind = "conflict"


class CapacityExhausted(ConnectorError):
    """No room (storage full, memory short): place elsewhere."""

    kind = "capacity_exhausted"


class Unsupported(ConnectorError):
    """This platform or this machine cannot do that; the message says why."""

    kind = "unsupported"


class PlatformFault(ConnectorError):
    """The platform failed in its own way; its words are kept for the administrator."""

    kind = "platform_fault"


BY_KIND: dict[str, type[ConnectorError]] = {
    error.kind: error
    for error in (
        Unreachable,
        CertificateRejected,
        CredentialsRejected,
        Busy,
        HostDown,
        NotFound,
        Conflict,
        CapacityExhausted,
        Unsupported,
        PlatformFault,
    )
}
