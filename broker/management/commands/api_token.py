"""Makes an API token for a user; prints it alone on its last line."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from broker.selectors.people import user_named
from broker.services import people
from broker.services.errors import Invalid, Refusal


class Command(BaseCommand):
    help = (
        "Make an API token with the user's own rights. It is shown once: standard output ends with it, alone on a line."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", help="name of the user")
        parser.add_argument(
            "--scope", action="append", choices=people.SCOPES, help="may be repeated; default: all that the user may do"
        )
        parser.add_argument(
            "--days", type=int, default=people.TOKEN_DAYS, help="valid for so long (default: %(default)s)"
        )
        parser.add_argument("--name", default="manage.py api_token", help="what lists of tokens call it")

    def handle(self, *args: Any, **options: Any) -> None:
        user = user_named(options["user"])
        if user is None:
            raise CommandError(f"There is no user {options['user']!r}.")
        try:
            token, plain = people.make_token(
                actor=user, user=user, name=options["name"], scopes=options["scope"] or (), days=options["days"]
            )
        except Invalid as refusal:
            raise CommandError(f"{refusal.message} {' '.join(refusal.fields.values())}") from refusal
        except Refusal as refusal:
            raise CommandError(refusal.message) from refusal
        self.stderr.write(f"For {user}, {' and '.join(token.scopes)}, until {token.expires_at:%Y-%m-%d %H:%M} UTC:")
        self.stdout.write(plain)
