"""Encrypts every stored secret anew with the newest key."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from broker.hypervisors.sealing import SecretsLocked
from broker.services.hypervisors import rotate_secrets


class Command(BaseCommand):
    help = (
        "Encrypt every stored secret anew with the newest key. Put the new key first in DESKYARD_VAULT_KEYS, restart "
        "all processes, run this, then take the old key out."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            number = rotate_secrets()
        except SecretsLocked as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Encrypted the secrets of {number} hypervisors and vaults with the newest key.")
