"""Lists the installed connectors: kinds, versions, and the orders each can take."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from broker.services.hypervisors import ConnectorKind, connector_kinds


class Command(BaseCommand):
    help = "List the installed connectors: kind, version and the orders each can take."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help='[{"kind", "version", "orders": ["CloneMachine", …]}]')

    def handle(self, *args: Any, **options: Any) -> None:
        found = connector_kinds()
        if options["json"]:
            self.stdout.write(json.dumps([_described(one) for one in found]))
            return
        for one in found:
            self.stdout.write(f"{one.kind}  {one.version}  {one.label}")
            self.stdout.write(f"    {', '.join(one.orders)}")


def _described(one: ConnectorKind) -> dict[str, Any]:
    return {"kind": one.kind, "version": one.version, "orders": list(one.orders)}
