"""How a page of the console answers: whole, as a fragment for htmx, with a question first, or with what was refused.

Everything works as plain pages and forms; with htmx the same addresses answer with fragments, toasts and events.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseBase, QueryDict
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from broker.console import frame
from broker.console.access import Right, needs
from broker.services.errors import Clash, Forbidden, Invalid, Missing, Refusal

P = ParamSpec("P")
T = TypeVar("T")

PAGE_SIZE = 50
STATUS: dict[type[Refusal], int] = {Missing: 404, Forbidden: 403, Invalid: 422, Clash: 409}


def is_htmx(request: HttpRequest) -> bool:
    return request.headers.get("HX-Request") == "true"


def asks_for_live_part(request: HttpRequest) -> bool:
    """Whether the page itself asks for its live part anew."""
    return is_htmx(request) and request.headers.get("HX-Target") == "live"


def show(request: HttpRequest, template: str, context: Mapping[str, Any], *, status: int = 200) -> HttpResponse:
    """A page `console/NOUN/NAME.html`; its fragment `_NAME.html` alone if the page asks for its live part anew."""
    if asks_for_live_part(request):
        folder, _slash, name = template.rpartition("/")
        return render(request, f"{folder}/_{name}", dict(context), status=status)
    return render(request, template, {**context, **frame.of(request)}, status=status)


def typed(request: HttpRequest, name: str, *, length: int = 100) -> str:
    """A word of the address."""
    return word(request.GET, name, length=length)


def word(given: QueryDict, name: str, *, length: int = 100) -> str:
    """A word that was sent, trimmed and cut; without NUL, which PostgreSQL refuses even in a comparison."""
    return given.get(name, "").replace("\0", "").strip()[:length]


def typed_uuid(request: HttpRequest, name: str) -> UUID | None:
    try:
        return UUID(request.GET.get(name, ""))
    except ValueError:
        return None


def posted(request: HttpRequest) -> QueryDict | None:
    """What a form is bound to: nothing until it was sent, even if it was sent empty."""
    return request.POST if request.method == "POST" else None


def page_of(request: HttpRequest, rows: QuerySet[Any], *, size: int = PAGE_SIZE) -> Page[Any]:
    """The page of the list that the address names; the nearest one there is for a wrong number."""
    return Paginator(rows, size).get_page(request.GET.get("page"))


def done(request: HttpRequest, message: str, to: str, *, leaves: bool = False) -> HttpResponse:
    """It was done. Without htmx: back to `to`. With htmx the page stays and reads anew what changed, or it `leaves`.

    `leaves`: what the page showed may be gone, or the next step is elsewhere.
    """
    if not is_htmx(request):
        messages.success(request, message)
        return redirect(to)
    if leaves:
        messages.success(request, message)
        return HttpResponse(status=204, headers={"HX-Redirect": to})
    events = {"toast": {"text": message, "tone": "good"}, "changed": "", "close-dialog": ""}
    return HttpResponse(status=204, headers={"HX-Trigger": json.dumps(events)})


def refused(request: HttpRequest, refusal: Refusal, back: str) -> HttpResponse:
    """It was not done, and why."""
    if not is_htmx(request):
        messages.warning(request, words_of(refusal))
        return redirect(back)
    events = {"toast": {"text": words_of(refusal), "tone": "attention"}, "changed": ""}
    return HttpResponse(status=STATUS.get(type(refusal), 409), headers={"HX-Trigger": json.dumps(events)})


def words_of(refusal: Refusal) -> str:
    """The message with what is wrong about single fields."""
    fields = refusal.fields.values() if isinstance(refusal, Invalid) else ()
    return " ".join([refusal.message, *fields])


def came_from(request: HttpRequest, otherwise: str) -> str:
    """The page of ours that the person was on."""
    referer = request.headers.get("Referer", "")
    hosts = {request.get_host()}
    if url_has_allowed_host_and_scheme(referer, hosts, require_https=request.is_secure()):
        return referer
    return otherwise


def act(
    view: Callable[Concatenate[HttpRequest, P], HttpResponseBase],
) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
    """For buttons that do something at once: POST only, for the help desk and up, refusals in words."""

    @wraps(view)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except Refusal as refusal:
            return refused(request, refusal, came_from(request, "/console/"))

    return needs(Right.SERVE)(require_POST(guarded))


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked before something happens that cannot be taken back easily."""

    title: str
    verb: str
    back: str
    sentences: list[str] = field(default_factory=list)
    typed_name: str = ""
    """Must be typed to go on; for deleting only."""
    note: str = ""
    """What may be typed beside the answer, as its label; it comes as `note`."""
    note_length: int = 500
    is_harmless: bool = False
    hidden: list[tuple[str, str]] = field(default_factory=list)
    """Fields sent along with the answer."""


def ask_first(
    request: HttpRequest,
    question: Question,
    do: Callable[[], str],
    to: str | Callable[[], str],
    *,
    leaves: bool = False,
) -> HttpResponse:
    """GET asks; POST does and says what `do` returns. A refusal is shown where the question was asked.

    `to`: asked after `do` where only that knows.
    """
    if request.method != "POST" or "asked" in request.POST:
        return _ask(request, question)
    if question.typed_name and request.POST.get("typed_name", "").strip() != question.typed_name:
        return _ask(request, question, faults={"typed_name": [_("That is not the name. Nothing was changed.")]})
    try:
        message = do()
    except Invalid as refusal:
        if question.note and refusal.fields:
            return _ask(request, question, refusal.message, faults={"note": list(refusal.fields.values())})
        return _ask(request, question, words_of(refusal))
    except Refusal as refusal:
        return _ask(request, question, words_of(refusal))
    return done(request, message, to if isinstance(to, str) else to(), leaves=leaves)


def _ask(
    request: HttpRequest, question: Question, problem: str = "", *, faults: Mapping[str, list[str]] | None = None
) -> HttpResponse:
    """With what was wrong about the answer: as a whole, and `faults` of single fields. What was typed stays."""
    context = {
        "action": request.get_full_path(),
        "title": question.title,
        "sentences": question.sentences,
        "verb": question.verb,
        "back": question.back,
        "typed_name": question.typed_name,
        "typed": request.POST.get("typed_name", ""),
        "note": question.note,
        "note_length": question.note_length,
        "note_value": request.POST.get("note", ""),
        "is_harmless": question.is_harmless,
        "hidden": question.hidden,
        "problem": problem,
        "faults": faults or {},
    }
    status = 422 if problem or faults else 200
    if is_htmx(request):
        return render(request, "components/confirm.html", context, status=status)
    return render(request, "console/confirm.html", {**context, **frame.of(request)}, status=status)


def saved(form: Form, do: Callable[[dict[str, Any]], T]) -> T | None:
    """What `do` returns for a form in order; None if form or service found a fault, which the form then shows.

    `called` of a form says which of its fields is meant by a service's other name.
    """
    if not form.is_valid():
        return None
    try:
        return do(form.cleaned_data)
    except Invalid as refusal:
        called: Mapping[str, str] = getattr(form, "called", {})
        for name, words in refusal.fields.items():
            field = called.get(name, name)
            form.add_error(field if field in form.fields else None, words)
        if not refusal.fields:
            form.add_error(None, refusal.message)
    except Refusal as refusal:
        form.add_error(None, refusal.message)
    return None
