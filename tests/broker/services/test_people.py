"""Accounts, groups, and tokens that never have more than their user's rights."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from broker.domain.permissions import Role, role_of
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
    assert "no role in the console" in refused.value.fields["scopes"]


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


def role(house: Estate, name: str) -> Role | None:
    return role_of(User.objects.get(username=name))


@pytest.mark.parametrize("wanted", list(Role))
def test_an_account_is_made_with_a_role_and_a_token_has_it_too(house: Estate, wanted: Role) -> None:
    made = people.create_user(actor=house.dana, name="erin", password="correct horse battery", role=wanted)
    assert role(house, "erin") is wanted
    token = people.token_user(people.make_token(actor=made, user=made, name="x")[1])
    assert token is not None
    assert role_of(token.user) is wanted


def test_a_role_is_given_and_taken_by_administrators_and_written_down(house: Estate) -> None:
    people.set_role(actor=house.dana, user_id=house.bob.pk, role=Role.AUDITOR)
    people.set_role(actor=house.dana, user_id=house.bob.pk, role=Role.ADMINISTRATOR)
    assert role(house, "bob") is Role.ADMINISTRATOR
    people.set_role(actor=house.dana, user_id=house.bob.pk, role=None)
    assert role(house, "bob") is None
    written = AuditEntry.objects.filter(action="user.role").order_by("pk").values_list("changes", flat=True)
    steps = [None, "auditor", "administrator", None]
    assert [entry["role"] for entry in written] == [list(step) for step in pairwise(steps)]
    with pytest.raises(Clash, match="your own role"):
        people.set_role(actor=house.dana, user_id=house.dana.pk, role=Role.AUDITOR)


def test_the_role_of_a_closed_account_is_changed_and_written_down(house: Estate) -> None:
    people.set_role(actor=house.dana, user_id=house.bob.pk, role=Role.OPERATOR)
    people.set_user_active(actor=house.dana, user_id=house.bob.pk, on=False)
    people.set_role(actor=house.dana, user_id=house.bob.pk, role=None)
    assert AuditEntry.objects.filter(action="user.role").latest("pk").changes == {"role": ["operator", None]}


@pytest.mark.parametrize("other", [Role.OPERATOR, Role.HELP_DESK, Role.AUDITOR])
def test_no_narrower_role_has_a_say_over_accounts(house: Estate, other: Role) -> None:
    people.set_role(actor=house.dana, user_id=house.bob.pk, role=other)
    bob = User.objects.get(pk=house.bob.pk)
    for verb in (
        lambda: people.create_user(actor=bob, name="x", password="correct horse battery"),
        lambda: people.set_role(actor=bob, user_id=house.alice.pk, role=Role.AUDITOR),
        lambda: people.set_password(actor=bob, user_id=house.dana.pk, password="correct horse battery"),
        lambda: people.make_token(actor=bob, user=house.dana, name="x"),
    ):
        with pytest.raises(Forbidden, match="takes the role administrator"):
            verb()


def test_the_last_administrator_stays_one_whoever_asks(house: Estate) -> None:
    """Two take each other's role in the same moment: the second does not yet know what the first did."""
    quicker = people.create_user(
        actor=house.dana, name="erin", password="correct horse battery", role=Role.ADMINISTRATOR
    )
    dana = User.objects.select_related("staff_role").get(pk=house.dana.pk)
    people.set_role(actor=quicker, user_id=dana.pk, role=Role.OPERATOR)
    for narrower in (Role.HELP_DESK, None):
        with pytest.raises(Clash, match="last administrator"):
            people.set_role(actor=dana, user_id=quicker.pk, role=narrower)
    with pytest.raises(Clash, match="last administrator"):
        people.set_user_active(actor=dana, user_id=quicker.pk, on=False)
    assert role(house, "erin") is Role.ADMINISTRATOR


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
