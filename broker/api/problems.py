"""Errors as RFC 9457 problems: `type`, `title`, `status`, `detail`, and what helps the caller go on.

Refusals of services keep their words; whatever else goes wrong says nothing of the inside.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import structlog
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.core.signals import got_request_exception
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.responses import Response

from broker.api.operations import OperationOut, show_operation
from broker.api.shapes import Out
from broker.services.errors import Clash, Forbidden, Invalid, Missing, Refusal

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
STATUS: dict[type[Refusal], HTTPStatus] = {
    Missing: HTTPStatus.NOT_FOUND,
    Forbidden: HTTPStatus.FORBIDDEN,
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    Clash: HTTPStatus.CONFLICT,
}


class Problem(Out):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str
    """The status in words."""
    status: int
    detail: str
    """What failed, on what, what to do."""
    fields: dict[str, str] | None = None
    """422: a message for each field that is wrong."""
    operation: OperationOut | None = None
    """409: what stands in the way or is on its way."""


def problem(
    status: int, detail: str, *, fields: Mapping[str, str] | None = None, operation: OperationOut | None = None
) -> HttpResponse:
    title = HTTPStatus(status).phrase
    body = Problem(
        title=title, status=status, detail=detail, fields=dict(fields) if fields else None, operation=operation
    )
    return Response(body.model_dump(exclude_none=True), status=status, content_type=MEDIA_TYPE)


def refused(request: HttpRequest, refusal: Refusal) -> HttpResponse:
    status = STATUS.get(type(refusal), HTTPStatus.CONFLICT)
    fields = refusal.fields if isinstance(refusal, Invalid) else None
    operation = refusal.operation if isinstance(refusal, Clash) else None
    return problem(
        status, refusal.message, fields=fields, operation=show_operation(request, operation) if operation else None
    )


def unauthenticated(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    answer = problem(HTTPStatus.UNAUTHORIZED, "Sign in, or send a valid API token: Authorization: Bearer TOKEN.")
    answer["WWW-Authenticate"] = "Bearer"
    return answer


def malformed(request: HttpRequest, error: ValidationError) -> HttpResponse:
    """Input that does not fit its type. An id in the address that is none names nothing: 404 as for an unknown one."""
    if any(fault["loc"][0] == "path" for fault in error.errors):
        return problem(HTTPStatus.NOT_FOUND, "There is no such thing.")
    fields = {_field(fault["loc"]): fault["msg"] for fault in error.errors}
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The input is wrong.", fields=fields)


def _field(place: tuple[str | int, ...]) -> str:
    """`("body", "wish", "members", 0, "weight")` -> `members.0.weight`: the argument's name is our own affair."""
    inner = place[2:] if place[0] == "body" and len(place) > 2 else place[1:] if place[0] != "body" else ("body",)
    return ".".join(str(part) for part in inner)


def http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    return problem(error.status_code, str(error))


def suspicious(request: HttpRequest, error: SuspiciousOperation) -> HttpResponse:
    if isinstance(error, RequestDataTooBig):
        return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large.")
    return problem(HTTPStatus.BAD_REQUEST, "The request cannot be read.")


def fault(request: HttpRequest, error: Exception) -> HttpResponse:
    """A bug of ours: told to the log and to Django's own listeners, not to the caller."""
    got_request_exception.send(sender=None, request=request)
    log.error("api.fault", path=request.path, exc_info=error)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong on our side. It was written to the log.")


def unknown(request: HttpRequest) -> HttpResponse:
    return problem(HTTPStatus.NOT_FOUND, "There is no such address. See /api/v1/openapi.json.")


def register(api: NinjaAPI) -> None:
    """Answer every error of this API as a problem."""
    handlers: dict[type[Exception], Callable[[HttpRequest, Any], HttpResponse]] = {
        Refusal: refused,
        AuthenticationError: unauthenticated,
        ValidationError: malformed,
        HttpError: http_error,
        SuspiciousOperation: suspicious,
        Exception: fault,
    }
    for kind, handler in handlers.items():
        api.add_exception_handler(kind, handler)


def with_problems(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """django-ninja answers a wrong method in plain text before any handler is asked."""

    @functools.wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        answer = view(request, *args, **kwargs)
        if answer.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
            return answer
        told = problem(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.method} does nothing here.")
        told["Allow"] = answer["Allow"]
        return told

    return wrapped
