"""What stands above every page of the portal: notices, and what waits for one's word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from broker.portal.answers import person, signed_in
from broker.selectors import notices


def show(request: HttpRequest, template: str, context: Mapping[str, Any], *, status: int = 200) -> HttpResponse:
    """A whole page; one statement for what stands above it, unless the context has it already."""
    head = context.get("head") or notices.head_of(person(request))
    return render(request, template, {**context, "head": head}, status=status)


@require_GET
@signed_in
def head(request: HttpRequest) -> HttpResponse:
    """The part of the head that changes."""
    return render(request, "portal/_head.html", {"head": notices.head_of(person(request))})
