"""Every part of the design system in all its states, on one page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib.messages import constants
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from broker.console.access import staff_only
from broker.console.answers import show
from broker.console.fields import WholeField
from broker.domain import sessions
from broker.domain.labels import (
    Label,
    Tone,
    consistency_label,
    failover_label,
    hypervisor_label,
    label,
    operation_label,
    point_label,
    policy_label,
    promise_label,
    request_label,
    run_label,
    session_label,
    vault_label,
)
from broker.domain.lifecycle import State
from broker.domain.notices import Kind
from broker.models import Event, Hypervisor, Notice, Operation, RecoveryPoint, ReplicationRun, Request, Vault
from broker.selectors.notices import told


class PatternForm(forms.Form):
    """One field of each sort, some of them wrong."""

    text = forms.CharField(label="Text", help_text="Help stands below.")
    wrong = WholeField(label="Wrong", help_text="What is wrong stands last.")
    optional = forms.CharField(label="Text", required=False)
    choice = forms.ChoiceField(label="Choice", choices=[("a", "First"), ("b", "Second")])
    long = forms.CharField(label="Long text", widget=forms.Textarea(attrs={"rows": 3}))
    check = forms.BooleanField(label="Check", required=False, help_text="A sentence about it.")
    closed = forms.CharField(label="Closed", disabled=True, initial="Cannot be changed", required=False)


ICONS = """
check user screen clock spinner power pause wrench question warning cross trash lock info plus minus close menu more
search dashboard desktops pool template hypervisor operation request drift audit people key network storage machine
play refresh arrow-left arrow-right chevron-down copy sun moon sign-out edit full-screen keyboard help link
template-copy filter replication vault bell star star-full
"""


FACTS = {
    "pool": "Office", "desktop": "office-001", "until": "Fri 27 Nov 2026, 14:00 UTC",
    "gone": "Sat 28 Nov 2026, 14:00 UTC", "words": "As somebody wrote it.",
    "at": "Fri 27 Nov 2026, 14:00 UTC", "version": "Debian 12 v2",
}  # fmt: skip


def _desktop_labels() -> list[Label]:
    standing = [
        label(state, power, has_session, answering, maintenance, operation)
        for state in (State.READY, State.ASSIGNED)
        for power, has_session, answering, maintenance, operation in (
            ("on", False, True, False, ""),
            ("on", True, True, False, ""),
            ("on", False, False, False, ""),
            ("off", False, False, False, ""),
            ("suspended", False, False, False, ""),
            ("unknown", False, False, False, ""),
            ("on", False, True, True, ""),
            ("on", False, True, False, "power"),
            ("on", False, True, True, "move"),
        )
    ]
    others = [label(state, "on", False, True, False) for state in State if state not in (State.READY, State.ASSIGNED)]
    return list(dict.fromkeys([*standing, *others]))


def _promise_labels() -> list[Label]:
    standing = [
        promise_label(is_chosen=chosen, is_enabled=enabled, has_point=has_point, is_kept=kept)
        for chosen, enabled, has_point, kept in (
            (True, True, True, True),
            (True, True, False, True),
            (True, True, True, False),
            (True, False, True, True),
            (False, True, True, True),
        )
    ]
    policies = [
        policy_label(is_enabled=True, machines=4, broken=1, without_point=0),
        policy_label(is_enabled=True, machines=0, broken=0, without_point=0),
        policy_label(is_enabled=True, machines=4, broken=0, without_point=1),
    ]
    return [*standing, *policies]


@staff_only
def patterns(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    form = PatternForm({"text": "As typed", "wrong": "twelve", "choice": "b", "long": "Two\nlines", "check": "on"})
    form.add_error(None, "What concerns the whole form stands above it.")
    context: dict[str, Any] = {
        "tones": list(Tone),
        "levels": [constants.DEFAULT_TAGS[level] for level in constants.DEFAULT_TAGS],
        "desktop_labels": _desktop_labels(),
        "hypervisor_labels": [hypervisor_label(status) for status in Hypervisor.Status.values],
        "operation_labels": [operation_label(state) for state in Operation.State.values],
        "request_labels": [request_label(state) for state in Request.State.values],
        "session_labels": [session_label(state) for state in sessions.State],
        "vault_labels": [vault_label(status) for status in Vault.Status.values],
        "promise_labels": _promise_labels(),
        "run_labels": [
            *(run_label(state) for state in ReplicationRun.State.values),
            run_label("running", is_to_end=True),
            run_label("queued", is_retried=True),
        ],
        "point_labels": [
            *(point_label(state) for state in RecoveryPoint.State.values),
            point_label("usable", is_verified=True),
            *(consistency_label(word) for word in ("guest", "crash", "off")),
        ],
        "failover_labels": [
            *(failover_label(state, "over") for state in ("done", "failed", "cancelled")),
            failover_label("running", "waiting"),
            failover_label("running", "landing"),
            failover_label("running", "taking_back"),
            failover_label("running", "landing", is_to_end=True),
        ],
        "lags": [
            (now - timedelta(minutes=12), 720, 3600, Tone.GOOD),
            (now - timedelta(minutes=58), 3480, 3600, Tone.GOOD),
            (now - timedelta(hours=3), 10_800, 3600, Tone.BAD),
            (now - timedelta(hours=3), 10_800, 3600, Tone.OFF),
            (None, None, 3600, Tone.BUSY),
        ],
        "form": form,
        "page": Paginator(range(240), 50).page(2),
        "steps": [("Finding", "done"), ("Starting", "done"), ("Preparing", "now"), ("Connecting", "later")],
        "failed_steps": [("Queued", "done"), ("Sent", "done"), ("Failed", "failed")],
        "events": [
            Event(at=now - timedelta(seconds=20), kind="desktop.ready", message="The guest answered."),
            Event(at=now - timedelta(minutes=2), kind="desktop.late", message="No answer yet.", level="warning"),
            Event(at=now - timedelta(hours=3), kind="desktop.failed", message="The storage is full.", level="error"),
        ],
        "notices": [
            told(Notice(kind=kind, facts=FACTS, created_at=now, read_at=now if is_read else None))
            for kind, is_read in ((Kind.LEASE_SOON, False), (Kind.DESKTOP_READY, True), (Kind.REQUEST_DECLINED, True))
        ],
        "icons": ICONS.split(),
        "colours": [
            "paper", "surface", "sunken", "selected", "brand", "brand-soft", "good-soft", "busy-soft", "off-soft",
            "attention-soft", "bad-soft", "frame",
        ],
        "pictures": ["yard", "search", "calm", "host"],
    }  # fmt: skip
    return show(request, "console/patterns/page.html", context)
