"""Every part of the design system in all its states, on one page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib.messages import constants
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from broker.console.access import administrators_only
from broker.console.answers import show
from broker.domain.labels import Label, Tone, hypervisor_label, label, operation_label, request_label
from broker.domain.lifecycle import State
from broker.models import Event, Hypervisor, Operation, Request


class PatternForm(forms.Form):
    """One field of each sort, some of them wrong."""

    text = forms.CharField(label="Text", help_text="Help stands below.")
    wrong = forms.IntegerField(label="Wrong", help_text="What is wrong stands last.")
    optional = forms.CharField(label="Text", required=False)
    choice = forms.ChoiceField(label="Choice", choices=[("a", "First"), ("b", "Second")])
    long = forms.CharField(label="Long text", widget=forms.Textarea(attrs={"rows": 3}))
    check = forms.BooleanField(label="Check", required=False, help_text="A sentence about it.")
    closed = forms.CharField(label="Closed", disabled=True, initial="Cannot be changed", required=False)


ICONS = """
check user screen clock spinner power pause wrench question warning cross trash lock info plus minus close menu more
search dashboard desktops pool template hypervisor operation request drift audit people key network storage machine
play refresh arrow-left arrow-right chevron-down copy sun moon sign-out edit full-screen keyboard help link
template-copy filter
"""


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
        )
    ]
    others = [label(state, "on", False, True, False) for state in State if state not in (State.READY, State.ASSIGNED)]
    return list(dict.fromkeys([*standing, *others]))


@administrators_only
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
        "form": form,
        "page": Paginator(range(240), 50).page(2),
        "steps": [("Finding", "done"), ("Starting", "done"), ("Preparing", "now"), ("Connecting", "later")],
        "failed_steps": [("Queued", "done"), ("Sent", "done"), ("Failed", "failed")],
        "events": [
            Event(at=now - timedelta(seconds=20), kind="desktop.ready", message="The guest answered."),
            Event(at=now - timedelta(minutes=2), kind="desktop.late", message="No answer yet.", level="warning"),
            Event(at=now - timedelta(hours=3), kind="desktop.failed", message="The storage is full.", level="error"),
        ],
        "icons": ICONS.split(),
        "colours": [
            "paper", "surface", "sunken", "selected", "brand", "brand-soft", "good-soft", "busy-soft", "off-soft",
            "attention-soft", "bad-soft", "frame",
        ],
        "pictures": ["yard", "search", "calm", "host"],
    }  # fmt: skip
    return show(request, "console/patterns/page.html", context)
