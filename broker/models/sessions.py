"""Screens, in the browser and in programs of a person's own: tickets and the sessions they opened."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q, Value

from broker.domain.sessions import Seen, State
from broker.models.applications import Application
from broker.models.desktops import Desktop
from broker.models.operations import Operation
from broker.models.people import ApiToken


class Client(models.TextChoices):
    """With what somebody looks at a desktop."""

    BROWSER = "browser", "Browser"
    NATIVE = "native", "Program of its user's own"
    """Opened by a file (`.rdp`), through a door of the relay that is no WebSocket."""


class Ticket(models.Model):
    """Leave to open one screen. Only its SHA-256 is kept.

    A browser's serves once. A native client's serves the address that showed it first, as often as that comes back
    while its stream lives and for a while after: such clients connect anew by themselves, with the file they have.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    hash = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    desktop = models.ForeignKey(Desktop, models.CASCADE, related_name="tickets")
    epoch = models.PositiveIntegerField()
    protocol = models.CharField(max_length=10)
    application = models.ForeignKey(Application, models.CASCADE, null=True, related_name="+")
    """What alone is shown; None: the whole desktop."""
    session_key = models.CharField(max_length=64, blank=True)
    """SHA-256 of the browser session's key that asked; empty if a token asked."""
    token = models.ForeignKey(ApiToken, models.CASCADE, null=True, related_name="+")
    operation = models.ForeignKey(Operation, models.SET_NULL, null=True, related_name="tickets")
    target = models.BinaryField(default=bytes)
    """Where the screen is, encrypted; empty until the operation is done."""
    target_expires_at = models.DateTimeField(null=True)
    client = models.CharField(max_length=10, choices=Client, default=Client.BROWSER, db_default=Client.BROWSER.value)
    address = models.GenericIPAddressField(null=True)
    """Native: who showed it first, and alone may show it again."""
    holder = models.BinaryField(default=bytes, db_default=Value(b"", models.BinaryField()))
    """Native: the browser session's key, encrypted, since no cookie comes along that would tell whether it lives."""
    expires_at = models.DateTimeField()
    """Until when it may be shown. Native: moved on while the stream lives."""
    used_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            models.Index(fields=["operation"], name="ticket_of_operation"),
            models.Index(fields=["expires_at"], name="ticket_by_age"),
        ]


class GuestCertificate(models.Model):
    """The certificate by which a desktop's guest was first met over RDP: nobody else may answer in its place.

    It holds while the desktop is the same guest in the same hands; another epoch or machine begins anew.
    """

    desktop = models.OneToOneField(Desktop, models.CASCADE, primary_key=True, related_name="guest_certificate")
    epoch = models.PositiveIntegerField()
    machine_id = models.CharField(max_length=200)
    sha256 = models.CharField(max_length=64)
    """Of the certificate's DER, in hexadecimal."""
    refused_sha256 = models.CharField(max_length=64, blank=True)
    """The last one that was turned away in its place; empty if none was."""
    seen_at = models.DateTimeField()
    """When it was first met."""


class ScreenSession(models.Model):
    """A stream between a browser, or a program of its user's own, and a screen."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    desktop = models.ForeignKey(Desktop, models.CASCADE, related_name="sessions")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    epoch = models.PositiveIntegerField()
    protocol = models.CharField(max_length=10)
    client = models.CharField(max_length=10, choices=Client, default=Client.BROWSER, db_default=Client.BROWSER.value)
    ticket = models.ForeignKey(Ticket, models.SET_NULL, null=True, related_name="+")
    """Native: by which its client may come back."""
    address = models.GenericIPAddressField(null=True)
    session_key = models.CharField(max_length=64, blank=True)
    """SHA-256 of the browser session's key: log-out closes the streams that carry it."""
    token = models.ForeignKey(ApiToken, models.CASCADE, null=True, related_name="+")
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    """Heartbeat of the relay that carries it."""
    input_at = models.DateTimeField(null=True)
    """When a key or the mouse last moved, as of that heartbeat; None: not told."""
    ended_at = models.DateTimeField(null=True)
    end_reason = models.CharField(max_length=100, blank=True)
    bytes_to_user = models.BigIntegerField(default=0)
    bytes_from_user = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["-started_at"]
        indexes = [models.Index(fields=["desktop"], condition=Q(ended_at=None), name="screen_session_open")]


class DesktopSession(models.Model):
    """A user's presence on a desktop: one while it lasts, however many streams it has had, and also while it has none.

    Whoever writes one locks its desktop first, then this row: streams that open, streams that end, timers and people
    meet there. A session host has one for each of its users.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    desktop = models.ForeignKey(Desktop, models.CASCADE, related_name="presences")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    epoch = models.PositiveIntegerField()
    state = models.CharField(max_length=12, choices=[(s.value, s.value) for s in State], default=State.CONNECTED.value)
    state_since = models.DateTimeField()
    began_at = models.DateTimeField()
    input_at = models.DateTimeField()
    """As `domain.sessions.Seen` has it, when it was last looked at."""
    closed_at = models.DateTimeField(null=True)
    """When its last stream ended; None while one is open."""
    address = models.GenericIPAddressField(null=True)
    """Of its newest stream."""
    client = models.CharField(max_length=10, choices=Client, default=Client.BROWSER)
    """Of its newest stream."""
    guest_user = models.CharField(max_length=200, blank=True)
    """Who is logged on, as the guest last said; empty: nobody, or nobody could tell."""
    guest_at = models.DateTimeField(null=True)
    """When the last reading of its guest began that could tell; None: none could."""
    asked_at = models.DateTimeField(null=True)
    """When its guest was last asked, whether it could tell or not."""
    had_user = models.BooleanField(default=False)
    empties = models.PositiveSmallIntegerField(default=0)
    warned_for = models.DateTimeField(null=True)
    """The moment of the end that its user was told of."""
    warned_at = models.DateTimeField(null=True)
    next_at = models.DateTimeField(null=True)
    """When the clock has something to look at; None: nothing happens by itself."""
    ended_at = models.DateTimeField(null=True)
    end_reason = models.CharField(max_length=100, blank=True)

    class Meta:
        ordering = ["-began_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["desktop", "user"], condition=Q(ended_at=None), name="session_one_a_user")
        ]
        indexes = [
            models.Index(fields=["-began_at", "-id"], name="session_newest"),
            models.Index(fields=["next_at"], condition=Q(ended_at=None, next_at__isnull=False), name="session_due"),
            models.Index(fields=["ended_at"], condition=Q(ended_at__isnull=False), name="session_by_age"),
        ]

    def __str__(self) -> str:
        return f"{self.user} on {self.desktop}"

    @property
    def seen(self) -> Seen:
        """What was known of it when it was last written."""
        return Seen(
            began_at=self.began_at,
            is_open=self.closed_at is None,
            input_at=self.input_at,
            closed_at=self.closed_at,
            had_user=self.had_user,
            empties=self.empties,
        )


class Device(models.Model):
    """What a browser session says it is, so that its user knows it again."""

    session_key = models.CharField(primary_key=True, max_length=64)
    """SHA-256 of the browser session's key, as screens carry it."""
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    words = models.CharField(max_length=100)
    seen_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["seen_at"], name="device_by_age")]

    def __str__(self) -> str:
        return self.words
