"""Published applications: one program of a pool's desktops, with a tile of its own."""

from __future__ import annotations

import uuid

from django.db import models

from broker.domain.applications import Program
from broker.models.pools import Pool


class Application(models.Model):
    class Guest(models.TextChoices):
        LINUX = "linux", "Linux (xrdp)"
        WINDOWS = "windows", "Windows (RemoteApp)"

    class Icon(models.TextChoices):
        APPLICATION = "application", "Window"
        DOCUMENT = "audit", "Document"
        MAIL = "mail", "Mail"
        WEB = "globe", "Web"
        CHART = "chart", "Chart"
        TERMINAL = "terminal", "Terminal"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    pool = models.ForeignKey(Pool, models.CASCADE, related_name="applications")
    name = models.CharField(max_length=100, unique=True)
    description = models.TextField(blank=True)
    icon = models.CharField(max_length=20, choices=Icon, default=Icon.APPLICATION)
    guest = models.CharField(max_length=10, choices=Guest, default=Guest.LINUX)
    """What its desktops run: it decides how a session is told to start one program alone."""
    command = models.CharField(max_length=200)
    """What is started: a command line without arguments; on Windows a path or `||alias`."""
    arguments = models.CharField(max_length=200, blank=True, default="")
    folder = models.CharField(max_length=200, blank=True, default="")
    """Where it is started; empty: where a session starts."""
    is_enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def program(self) -> Program:
        """What a session on its desktops is told to start."""
        return Program(self.name, self.command, self.arguments, self.folder, self.guest == self.Guest.WINDOWS)
