"""Accounts, groups, and tokens that never have more than their user's rights."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from broker.models import ApiToken, AuditEntry, Request
from broker.services import brokering, people
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


def test_a_token_is_kept_only_as_a_hash_and_opens_its_users_account(house: Estate) -> None:
    token, plain = people.make_token(actor=house.alice, user=house.alice, name="script")
    assert plain not in str(ApiToken.objects.values().get())
    assert plain.startswith(token.prefix)
    assert len(plain) > 43  # 256 bits and the mark
    found = people.token_user(plain)
    assert found is not None
    assert found.user == house.alice
    assert timedelta(days=29) < token.expires_at - timezone.now() <= timedelta(days=30)
    assert plain not in str(AuditEntry.objects.values().get())


def test_a_token_has_at_most_its_users_rights(house: Estate) -> None:
    assert people.make_token(actor=house.alice, user=house.alice, name="x")[0].scopes == ["portal"]
    assert people.make_token(actor=house.dana, user=house.dana, name="x")[0].scopes == ["admin", "portal"]
    assert people.make_token(actor=house.dana, user=house.dana, name="x", scopes=["portal"])[0].scopes == ["portal"]
    with pytest.raises(Invalid, match="not made") as refused:
        people.make_token(actor=house.alice, user=house.alice, name="x", scopes=["admin"])
    assert "no administrator" in refused.value.fields["scopes"]


@pytest.mark.parametrize(
    ("wish", "field"),
    [({"name": ""}, "name"), ({"days": 0}, "days"), ({"days": 10**9}, "days"), ({"scopes": ["root"]}, "scopes")],
)
def test_wrong_wishes_are_refused(house: Estate, wish: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        people.make_token(**({"actor": house.dana, "user": house.dana, "name": "x"} | wish))  # type: ignore[arg-type]
    assert list(refused.value.fields) == [field]


def test_only_administrators_make_tokens_for_others(house: Estate) -> None:
    with pytest.raises(Forbidden):
        people.make_token(actor=house.alice, user=house.dana, name="x")
    assert people.make_token(actor=house.dana, user=house.alice, name="x")[0].user == house.alice


def test_expired_revoked_unknown_and_closed_tokens_open_nothing(house: Estate) -> None:
    token, plain = people.make_token(actor=house.alice, user=house.alice, name="x")
    assert people.token_user(plain + "x") is None
    assert people.token_user("") is None
    assert people.token_user("half\ud800") is None
    ApiToken.objects.update(expires_at=timezone.now())
    assert people.token_user(plain) is None
    ApiToken.objects.update(expires_at=timezone.now() + timedelta(days=1))
    assert people.token_user(plain) is not None
    User.objects.filter(pk=house.alice.pk).update(is_active=False)
    assert people.token_user(plain) is None
    User.objects.filter(pk=house.alice.pk).update(is_active=True)
    people.revoke_token(actor=house.alice, token_id=token.pk)
    assert people.token_user(plain) is None


def test_nobody_revokes_a_strangers_token(house: Estate) -> None:
    token, _ = people.make_token(actor=house.alice, user=house.alice, name="x")
    with pytest.raises(Missing):
        people.revoke_token(actor=house.charlie, token_id=token.pk)
    people.revoke_token(actor=house.dana, token_id=token.pk)
    people.revoke_token(actor=house.dana, token_id=token.pk)
    assert AuditEntry.objects.filter(action="token.revoke").count() == 1


def test_a_tokens_use_is_noted_at_most_once_a_minute(
    house: Estate, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    _, plain = people.make_token(actor=house.alice, user=house.alice, name="x")
    with django_assert_num_queries(2):
        people.token_user(plain)
    with django_assert_num_queries(1):
        people.token_user(plain)


def test_accounts_are_made_with_groups_and_a_password_worth_the_name(house: Estate) -> None:
    made = people.create_user(
        actor=house.dana, name="Erin O'Neill", password="correct horse battery", group_ids=[house.staff.pk]
    )
    assert made.check_password("correct horse battery")
    assert list(made.groups.all()) == [house.staff]
    assert "horse" not in str(AuditEntry.objects.values())
    with pytest.raises(Invalid) as refused:
        people.create_user(actor=house.dana, name="ALICE", password="x", group_ids=[10**9])
    assert set(refused.value.fields) == {"name", "password", "groups"}


def test_a_closed_account_loses_its_place_in_the_queue_and_nobody_closes_their_own(house: Estate) -> None:
    brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    people.set_user_active(actor=house.dana, user_id=house.bob.pk, on=False)
    assert Request.objects.get(user=house.bob).state == "refused"
    with pytest.raises(Clash):
        people.set_user_active(actor=house.dana, user_id=house.dana.pk, on=False)


def test_people_set_their_own_password_and_administrators_anybodys(house: Estate) -> None:
    people.set_password(actor=house.alice, user_id=house.alice.pk, password="a new long password")
    people.set_password(actor=house.dana, user_id=house.alice.pk, password="another long password")
    assert User.objects.get(username="alice").check_password("another long password")
    with pytest.raises(Forbidden):
        people.set_password(actor=house.charlie, user_id=house.alice.pk, password="a new long password")


def test_group_names_are_unique(house: Estate) -> None:
    assert people.create_group(actor=house.dana, name="Pilots").name == "Pilots"
    with pytest.raises(Invalid):
        people.create_group(actor=house.dana, name="pilots")


@pytest.mark.parametrize("person", ["alice", "bob", "charlie"])
def test_only_administrators_have_a_say(house: Estate, person: str) -> None:
    actor = getattr(house, person)
    for verb in (
        lambda: people.create_user(actor=actor, name="x", password="correct horse battery"),
        lambda: people.create_group(actor=actor, name="x"),
        lambda: people.set_groups(actor=actor, user_id=actor.pk, group_ids=[]),
        lambda: people.set_user_active(actor=actor, user_id=house.dana.pk, on=False),
    ):
        with pytest.raises(Forbidden):
            verb()
