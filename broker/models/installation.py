"""Who we are: to the hypervisors, half of every machine's stamp; to people's programs, who signed their files."""

from __future__ import annotations

import uuid

from django.db import models


class Installation(models.Model):
    """The one row that names this installation. Two of them on one hypervisor never touch each other's machines."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    only = models.BooleanField(default=True, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(only=True), name="installation_is_one")]

    def __str__(self) -> str:
        return "this installation"


class FileSigner(models.Model):
    """The one certificate by which files for people's programs are signed, and its key."""

    only = models.BooleanField(default=True, unique=True, editable=False)
    certificates = models.TextField()
    """PEM: its own first, then those that vouch for it."""
    secrets = models.BinaryField()
    """The private key, encrypted."""
    is_uploaded = models.BooleanField(default=False)
    """Whether an administrator brought it; else Deskyard made it itself."""
    changed_at = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(only=True), name="file_signer_is_one")]

    def __str__(self) -> str:
        return "the signature of files"
