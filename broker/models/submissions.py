"""Forms that were sent, for as long as they may come a second time."""

from __future__ import annotations

from django.db import models


class Submission(models.Model):
    """One sending of a form, by the hash of all that it is."""

    key = models.CharField(max_length=64, primary_key=True)
    answer = models.JSONField(null=True)
    """What was said to it; None while it is being worked on."""
    until = models.DateTimeField(db_index=True)
    """From then on the same key is another sending."""

    def __str__(self) -> str:
        return self.key
