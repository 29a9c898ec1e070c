"""Operations: what the broker asked of the hypervisors, how far it is, and why it failed."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from broker.console.access import actor_of, staff_only
from broker.console.answers import act, came_from, done, show, typed, typed_uuid
from broker.console.lists import Column, Listing
from broker.models import Hypervisor, Operation
from broker.selectors import audit
from broker.selectors import operations as selectors
from broker.services import operations as services

LIST = Listing(
    "operations",
    Column("what", gettext_lazy("What"), lambda row: row.kind, ("kind",)),
    Column("on", gettext_lazy("On"), lambda row: row.desktop.name if row.desktop else "", ("desktop__name",)),
    Column("hypervisor", gettext_lazy("Hypervisor"), lambda row: row.hypervisor.name, ("hypervisor__name",)),
    Column("state", gettext_lazy("State"), lambda row: row.state, ("state",)),
    Column("error", gettext_lazy("Error"), lambda row: row.error),
    Column("who", gettext_lazy("Who asked"), lambda row: row.requested_by or "Deskyard", ("requested_by__username",)),
    Column("cause", gettext_lazy("Cause"), lambda row: row.cause),
    Column("when", gettext_lazy("When"), lambda row: row.created_at, ("created_at",), begins_down=True),
    Column("finished", gettext_lazy("Finished"), lambda row: row.finished_at, ("finished_at",), begins_down=True),
    Column("took", gettext_lazy("Took")),
    Column("id", gettext_lazy("Id"), lambda row: row.pk),
)
RETRIABLE = (Operation.State.FAILED, Operation.State.CANCELLED)


@staff_only
def list_(request: HttpRequest) -> HttpResponse:
    state, kind = typed(request, "state"), typed(request, "kind")
    wanted = selectors.OperationFilter(
        state=state if state in {*Operation.State.values, "unfinished"} else "",
        kind=kind if kind in Operation.Kind.values else "",
        hypervisor=typed_uuid(request, "hypervisor"),
        text=typed(request, "q"),
    )
    context = {
        "wanted": wanted,
        "states": [("unfinished", _("Not finished")), *Operation.State.choices],
        "kinds": Operation.Kind.choices,
        "hypervisors": Hypervisor.objects.only("name"),
    }
    return LIST.answer(request, "console/operations/list.html", wanted.apply(selectors.operations()), context)


@staff_only
def detail(request: HttpRequest, operation_id: UUID) -> HttpResponse:
    operation = get_object_or_404(selectors.operations().select_related("retry_of"), pk=operation_id)
    context = {
        "operation": operation,
        "events": audit.events_of(operation),
        "retries": operation.retries.all()[:5],
        "can_cancel": operation.state == Operation.State.QUEUED,
        "can_retry": operation.state in RETRIABLE and not services.repeats_itself(operation),
        "is_self_repeated": operation.state in RETRIABLE and services.repeats_itself(operation),
        "steps": _steps(operation),
    }
    return show(request, "console/operations/detail.html", context)


def _steps(operation: Operation) -> list[tuple[str, str]]:
    """Queued, sent, running, done: which are behind, which is now."""
    order = [Operation.State.QUEUED, Operation.State.SENT, Operation.State.RUNNING, Operation.State.DONE]
    if operation.state in RETRIABLE:
        reached = [_("Queued"), *([_("Sent")] if operation.sent_at else [])]
        return [*((words, "done") for words in reached), (operation.get_state_display(), "failed")]
    now = order.index(Operation.State(operation.state))
    is_done = operation.state == Operation.State.DONE
    return [
        (str(state.label), "done" if index < now or is_done else "now" if index == now else "later")
        for index, state in enumerate(order)
    ]


@act
def retry(request: HttpRequest, operation_id: UUID) -> HttpResponse:
    operation = services.retry_operation(actor=actor_of(request), operation_id=operation_id)
    return done(request, _("Ordered anew."), reverse("console:operation", args=[operation.pk]), leaves=True)


@act
def cancel(request: HttpRequest, operation_id: UUID) -> HttpResponse:
    services.cancel_operation(actor=actor_of(request), operation_id=operation_id)
    return done(request, _("Cancelled."), came_from(request, reverse("console:operations")))
