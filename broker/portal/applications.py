"""Opening one application: on the desktop that its user has, or one that is asked for now."""

from __future__ import annotations

from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from broker.portal.answers import person, refused, signed_in, told
from broker.portal.requests import words_for
from broker.selectors import portal
from broker.services import brokering
from broker.services.errors import Clash, Invalid


@require_POST
@signed_in
def ask(request: HttpRequest, application_id: UUID) -> HttpResponse:
    """A desktop for it. Asking twice changes nothing; where the pool wants to know something, its form comes next."""
    application = portal.applications_of(person(request)).filter(pk=application_id).first()
    if application is None:
        raise Http404
    try:
        made, is_new = brokering.request_desktop(user=person(request), pool_id=application.pool_id)
    except Invalid:
        return redirect("portal:ask", application.pool_id)
    except Clash as clash:
        return refused(request, clash)
    return told(request, *words_for(made, is_new=is_new))
