"""Tags and filters that every template knows. They show; they never ask the database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django import template
from django.forms import BoundField
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from broker.domain.labels import (
    Label,
    Tone,
    account_label,
    application_label,
    consistency_label,
    desktop_label,
    failover_label,
    hypervisor_label,
    operation_label,
    point_label,
    request_label,
    run_label,
    schedule_label,
    seat_words,
    session_label,
    vault_label,
)
from broker.domain.leases import in_words
from broker.domain.permissions import role_of
from broker.domain.schedules import Action, Reach, days_in_words, reach_in_words
from broker.domain.sizes import size_in_words
from broker.domain.spans import roughly, span_in_words

register = template.Library()

THEMES = ("light", "dark")
THEME_COOKIE = "deskyard_theme"


@register.simple_tag
def icon(name: str, size: str = "") -> SafeString:
    """One picture of the sprite; decoration only, the word stands beside it. A spinner turns."""
    classes = " ".join(
        part for part in ("icon", f"icon--{size}" if size else "", "icon--turning" if name == "spinner" else "") if part
    )
    return format_html(
        '<svg class="{}" aria-hidden="true" focusable="false"><use href="{}#{}"/></svg>',
        classes,
        static("img/icons.svg"),
        name,
    )


@register.simple_tag
def picture(name: str) -> SafeString:
    """The drawing of an empty state (`static/img/empty-NAME.svg`), in the colours of the page."""
    return format_html(
        '<svg class="empty__picture" viewBox="0 0 200 112" aria-hidden="true" focusable="false">'
        '<use href="{}#picture"/></svg>',
        static(f"img/empty-{name}.svg"),
    )


@register.inclusion_tag("components/chip.html")
def chip(label: Label, *, wrap: bool = False) -> dict[str, object]:
    """A state: icon, word and colour."""
    return {"text": label.text, "tone": label.tone, "icon_name": label.icon, "wrap": wrap}


@register.inclusion_tag("components/chip.html")
def plain_chip(text: object, tone: str = "off", icon_name: str = "") -> dict[str, object]:
    """A chip of one's own words."""
    return {"text": text, "tone": tone, "icon_name": icon_name, "wrap": False}


register.filter("desktop_state", desktop_label)
register.filter("application_state", application_label)


@register.filter
def held_by(desktop: Any) -> str:
    """Who has a desktop, or how many are on a session host; of a row of `selectors.desktops.desktops_with_owner`."""
    if not desktop.pool.is_shared:
        return desktop.owner or ""
    words = _(seat_words(desktop))
    return words % {"taken": desktop.seats_taken, "seats": desktop.pool.seats}


@register.filter
def hypervisor_state(hypervisor: Any) -> Label:
    return hypervisor_label(hypervisor.status, hypervisor.is_draining)


@register.filter
def account_state(person: Any) -> Label:
    """Of an account with its role (`selectors.people.users`)."""
    return account_label(role_of(person), is_active=person.is_active)


@register.filter
def reached_by(address: str, can: Any) -> bool:
    """Whether who looks may go there: `url|reached_by:can`. Where nobody asks who may what, everybody may."""
    return bool(can.reach(address)) if can else True


@register.filter
def operation_state(operation: Any) -> Label:
    return operation_label(operation.state)


@register.filter
def request_state(request: Any) -> Label:
    return request_label(request.state)


@register.filter
def session_state(session: Any) -> Label:
    return session_label(session.state)


@register.filter
def schedule_state(schedule: Any) -> Label:
    return schedule_label(schedule.is_enabled)


@register.filter
def vault_state(vault: Any) -> Label:
    return vault_label(vault.status)


@register.filter
def run_state(run: Any) -> Label:
    return run_label(run.state, is_to_end=run.is_to_end, is_retried=run.attempt > 0)


@register.filter
def failover_state(failover: Any) -> Label:
    return failover_label(failover.state, failover.step, is_to_end=failover.is_to_end)


@register.filter
def point_state(point: Any) -> Label:
    return point_label(point.state, is_verified=point.verified_at is not None)


@register.filter
def consistency(point: Any) -> Label:
    return consistency_label(point.consistency)


@register.filter
def schedule_does(schedule: Any) -> str:
    """ "Switches on until 80 % are on"."""
    return reach_in_words(Action(schedule.action), Reach(schedule.reach), schedule.amount)


@register.filter
def schedule_when(schedule: Any) -> str:
    """ "Monday to Friday at 08:30"."""
    return _("%(days)s at %(time)s") % {"days": days_in_words(schedule.weekdays), "time": f"{schedule.at:%H:%M}"}


@register.filter
def clock_of(moment: datetime | None, zone: str) -> SafeString | str:
    """A moment on the clock of a zone. Whoever reads it elsewhere is told their own time beside it."""
    if moment is None:
        return ""
    there = moment.astimezone(ZoneInfo(zone))
    words = f"{there:%a} {there.day} {there:%b, %H:%M}"
    return format_html('<time data-zone="{}" datetime="{}">{}</time>', zone, moment.isoformat(), words)


TONE_ICONS = {
    Tone.GOOD: "check", Tone.BUSY: "info", Tone.OFF: "info", Tone.ATTENTION: "warning", Tone.BAD: "cross",
}  # fmt: skip
_LEVELS = {"debug": "off", "info": "busy", "success": "good", "warning": "attention", "error": "bad"}


@register.filter
def level_tone(level: str) -> str:
    """The tone of a message's or an event's level."""
    return _LEVELS.get(level.split()[-1] if level else "", "busy")


@register.filter
def tone_icon(tone: str) -> str:
    return TONE_ICONS.get(Tone(tone), "info")


@register.inclusion_tag("components/head.html", takes_context=True)
def head(context: template.Context, name: str, title: object = "", *, is_number: bool = False) -> dict[str, object]:
    """A column's head; a link that sorts where the context's `listing` can sort by it.

    `title`: what it says in a table that stands outside its list, where there is no `listing`.
    """
    listing = context.get("listing")
    if listing is None:
        return {"title": title, "is_number": is_number}
    column = {"title": listing.columns[name].title, "direction": listing.direction(name), "is_number": is_number}
    if not column["direction"]:
        return column
    query = context["request"].GET.copy()
    query.pop("page", None)
    query["sort"] = listing.after(name)
    return {**column, "address": f"?{query.urlencode()}"}


@register.inclusion_tag("components/field.html")
def field(bound: BoundField) -> dict[str, object]:
    """A form's field with label, help and error."""
    attributes: dict[str, str | bool] = {}
    described = []
    if bound.help_text:
        described.append(f"{bound.auto_id}-help")
    if bound.errors:
        described.append(f"{bound.auto_id}-error")
        attributes["aria-invalid"] = "true"
    if described:
        attributes["aria-describedby"] = " ".join(described)
    return {
        "bound": bound,
        "control": bound.as_widget(attrs=attributes),
        "is_check": getattr(bound.field.widget, "input_type", "") == "checkbox",
    }


@register.simple_tag(takes_context=True)
def file_address(context: template.Context) -> str:
    """Where the list as it is filtered and sorted now can be had as a file."""
    query = context["request"].GET.copy()
    query.pop("page", None)
    query["format"] = "csv"
    return f"?{query.urlencode()}"


@register.simple_tag(takes_context=True)
def theme(context: template.Context) -> str:
    """ "light" or "dark" if the person chose one, else empty: the system's wish holds."""
    request = context.get("request")
    chosen = request.COOKIES.get(THEME_COOKIE, "") if request else ""
    return chosen if chosen in THEMES else ""


@register.filter
def mib(value: float | None) -> str:
    """2048 -> "2 GiB"; None -> a dash."""
    if value is None:
        return "–"
    size: float = value
    for unit in ("MiB", "GiB", "TiB", "PiB"):
        if abs(size) < 1024 or unit == "PiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if size >= 100 or size == int(size) else f"{size:.1f} {unit}"


@register.filter
def size(value: float | None) -> str:
    """Bytes: 2097152 -> "2 MiB"; None -> a dash."""
    return "–" if value is None else size_in_words(value)


@register.filter
def span(seconds: float | None) -> str:
    """A length of time in words: 5400 -> "1 h 30 min"; None -> a dash."""
    return "–" if seconds is None else roughly(seconds)


@register.filter
def hours(number: int | None) -> str:
    """24 -> "1 day"; None -> a dash."""
    return "–" if number is None else in_words(number)


@register.filter
def minutes(number: int | None) -> str:
    """90 -> "1 h 30 min"; None -> a dash."""
    return "–" if number is None else span_in_words(number * 60)


@register.filter
def share(part: float, whole: float) -> float:
    """Per cent, 0 to 100, for bars."""
    return round(min(max(100 * part / whole, 0), 100), 2) if whole else 0


@register.filter
def is_full(used: float, reserved: float) -> bool:
    """Whether two shares in per cent leave nothing."""
    return used + reserved >= 100


AUDITED_LENGTH = 160


@register.filter
def audited(value: object) -> str:
    """A value before or after a change as people read it; empty for nothing. Long ones (certificates) are cut."""
    if value is None or value == []:
        return ""
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, list):
        return ", ".join(audited(item) for item in value)
    words = " ".join(str(value).split())
    return words if len(words) <= AUDITED_LENGTH else f"{words[:AUDITED_LENGTH]} …"


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """How long ago (or how soon), with the exact time on hover; None: "never"."""
    if moment is None:
        return _("never")
    seconds = int((timezone.now() - moment).total_seconds())
    words = _span(abs(seconds))
    if abs(seconds) < 5:
        text = _("just now")
    elif seconds > 0:
        text = _("%(span)s ago") % {"span": words}
    else:
        text = _("in %(span)s") % {"span": words}
    return format_html(
        '<time data-age datetime="{}" title="{}">{}</time>', moment.isoformat(), f"{moment:%Y-%m-%d %H:%M:%S %Z}", text
    )


def _span(seconds: int) -> str:
    if seconds < 60:
        return _("%(n)d s") % {"n": seconds}
    if seconds < 3600:
        return _("%(n)d min") % {"n": seconds // 60}
    if seconds < 86_400:
        return _("%(n)d h") % {"n": seconds // 3600}
    days = seconds // 86_400
    return ngettext("%(n)d day", "%(n)d days", days) % {"n": days}


@register.filter
def lasted(since: datetime | None, until: datetime | None) -> str:
    """How long from one moment to another (or until now): "1 min 12 s"."""
    if since is None:
        return "–"
    seconds = ((until or timezone.now()) - since).total_seconds()
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


@register.filter
def spanned(since: datetime | None, until: datetime | None) -> str:
    """How long from one moment to another (or until now), for long spans: "2 days 3 h"."""
    return span(((until or timezone.now()) - since).total_seconds() if since else None)


@register.filter
def initials(name: str) -> str:
    parts = [part for part in str(name).replace(".", " ").replace("-", " ").split() if part]
    return "".join(part[0] for part in parts[:2]).upper() or "?"


@register.filter
def entry(mapping: Mapping[Any, object], key: object) -> object:
    """A value of a mapping by a key that is a variable; empty if there is none."""
    return mapping[key] if key in mapping else mapping.get(str(key), "")
