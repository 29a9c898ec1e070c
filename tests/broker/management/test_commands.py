"""What operators type: api_token, connectors, rotate_secrets."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from pytest_django import Settings

from broker.models import ApiToken
from broker.services import hypervisors, people
from tests.broker.portal.cast import Estate, estate

pytestmark = pytest.mark.django_db


@pytest.fixture
def house(db: None) -> Estate:
    return estate()


def run(command: str, *arguments: Any) -> str:
    out = StringIO()
    call_command(command, *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_api_token_ends_with_the_token_alone_on_its_line(house: Estate) -> None:
    plain = run("api_token", "alice").splitlines()[-1]
    token = people.token_user(plain)
    assert token is not None
    assert (token.user, token.scopes) == (house.alice, ["portal"])


def test_an_administrators_token_has_all_rights_unless_narrowed(house: Estate) -> None:
    run("api_token", "dana")
    assert ApiToken.objects.latest("created_at").scopes == ["admin", "portal"]
    run("api_token", "dana", "--scope", "portal", "--days", "3")
    assert ApiToken.objects.latest("created_at").scopes == ["portal"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["erin"], "no user 'erin'"),
        (["alice", "--scope", "admin"], "no role in the console"),
        (["alice", "--days", "0"], "whole number"),
        (["alice", "--scope", "root"], "invalid choice"),
    ],
)
def test_api_token_says_what_is_wrong_and_makes_none(house: Estate, arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        run("api_token", *arguments)
    assert not ApiToken.objects.exists()


def test_a_closed_account_gets_no_token(house: Estate) -> None:
    house.alice.is_active = False
    house.alice.save()
    with pytest.raises(CommandError, match="closed"):
        run("api_token", "alice")


def test_connectors_lists_kinds_versions_and_orders_for_people_and_programs() -> None:
    found = {one["kind"]: one for one in json.loads(run("connectors", "--json"))}
    assert found["kvm"].keys() == {"kind", "version", "orders"}
    assert "CloneMachine" in found["kvm"]["orders"]
    assert "KVM (libvirt)" in run("connectors")


def test_rotate_secrets_says_how_many_and_stops_at_a_lost_key(house: Estate, settings: Settings) -> None:
    hypervisors.register_hypervisor(actor=house.dana, name="h", kind="kvm", values={"password": "sesame"})
    old, new = settings.VAULT_KEYS[0], Fernet.generate_key().decode()
    settings.VAULT_KEYS = [new, old]
    assert "1 hypervisors" in run("rotate_secrets")
    settings.VAULT_KEYS = [old]
    with pytest.raises(CommandError, match="not configured"):
        run("rotate_secrets")
