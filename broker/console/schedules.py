"""Power schedules of pools, and the calendars of holidays that they respect."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from broker.console.access import Right, actor_of, needs
from broker.console.answers import Question, act, ask_first, came_from, done, page_of, posted, saved, show
from broker.console.schedule_forms import CalendarForm, ScheduleForm, calendar_initial, schedule_initial
from broker.models import HolidayCalendar, Pool, PowerSchedule
from broker.selectors import schedules as selectors
from broker.services import schedules as services


def _pool_address(pool_id: UUID) -> str:
    return reverse("console:pool", args=[pool_id])


@needs(Right.REVIEW)
def list_(request: HttpRequest) -> HttpResponse:
    context = {
        "page": page_of(request, selectors.schedules()),
        "calendars": selectors.calendar_standings(timezone.now().date()),
    }
    return show(request, "console/schedules/list.html", context)


@needs(Right.OPERATE)
def add(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    pool = get_object_or_404(Pool, pk=pool_id)
    form = ScheduleForm(posted(request), is_new=True)
    if request.method == "POST":
        actor = actor_of(request)
        made = saved(form, lambda _data: services.create_schedule(actor=actor, pool_id=pool_id, **form.values()))
        if made:
            return done(request, _("%s is set.") % made, _pool_address(pool_id))
    context = {"form": form, "pool": pool}
    return show(request, "console/schedules/form.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
def edit(request: HttpRequest, schedule_id: UUID) -> HttpResponse:
    schedule = get_object_or_404(PowerSchedule.objects.select_related("pool"), pk=schedule_id)
    form = ScheduleForm(posted(request), initial=schedule_initial(schedule), is_new=False)
    if request.method == "POST":
        actor = actor_of(request)
        if saved(form, lambda _data: services.change_schedule(actor=actor, schedule_id=schedule_id, **form.values())):
            return done(request, _("Saved."), _pool_address(schedule.pool_id))
    context = {"form": form, "pool": schedule.pool, "schedule": schedule}
    return show(request, "console/schedules/form.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
@act
def enable(request: HttpRequest, schedule_id: UUID) -> HttpResponse:
    on = request.POST.get("on") == "1"
    schedule = services.enable_schedule(actor=actor_of(request), schedule_id=schedule_id, on=on)
    message = _("%s runs again.") if on else _("%s is paused: it does not run until you resume it.")
    return done(request, message % schedule, came_from(request, _pool_address(schedule.pool_id)))


@needs(Right.OPERATE)
def delete(request: HttpRequest, schedule_id: UUID) -> HttpResponse:
    schedule = get_object_or_404(PowerSchedule.objects.select_related("pool"), pk=schedule_id)
    back = _pool_address(schedule.pool_id)
    question = Question(
        title=_("Delete the schedule %s?") % schedule,
        verb=_("Delete it"),
        back=back,
        sentences=[_("%s is no longer switched by it. What it has ordered already goes on.") % schedule.pool],
    )

    def do() -> str:
        services.delete_schedule(actor=actor_of(request), schedule_id=schedule_id)
        return _("%s was deleted.") % schedule

    return ask_first(request, question, do, back)


@needs(Right.OPERATE)
def add_calendar(request: HttpRequest) -> HttpResponse:
    form = CalendarForm(posted(request))
    if request.method == "POST":
        actor = actor_of(request)
        made = saved(form, lambda data: services.create_calendar(actor=actor, name=data["name"], days=data["days"]))
        if made:
            return done(request, _("%s is set.") % made, reverse("console:schedules"))
    return show(request, "console/schedules/calendar.html", {"form": form}, status=422 if form.errors else 200)


@needs(Right.OPERATE)
def edit_calendar(request: HttpRequest, calendar_id: UUID) -> HttpResponse:
    calendar = get_object_or_404(HolidayCalendar, pk=calendar_id)
    form = CalendarForm(posted(request), initial={} if request.method == "POST" else calendar_initial(calendar))
    if request.method == "POST":
        actor = actor_of(request)
        changed = saved(
            form,
            lambda data: services.change_calendar(
                actor=actor, calendar_id=calendar_id, name=data["name"], days=data["days"]
            ),
        )
        if changed:
            return done(
                request, _("Saved. Schedules that respect it run by the new days."), reverse("console:schedules")
            )
    context = {"form": form, "calendar": calendar}
    return show(request, "console/schedules/calendar.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
def delete_calendar(request: HttpRequest, calendar_id: UUID) -> HttpResponse:
    calendar = get_object_or_404(HolidayCalendar, pk=calendar_id)
    question = Question(
        title=_("Delete the calendar %s?") % calendar,
        verb=_("Delete it"),
        back=reverse("console:schedules"),
        sentences=[_("No schedule may respect it any more.")],
    )

    def do() -> str:
        services.delete_calendar(actor=actor_of(request), calendar_id=calendar_id)
        return _("%s was deleted.") % calendar

    return ask_first(request, question, do, reverse("console:schedules"))
