"""Requests that wait for somebody's word, and who may say it.

Alice is entitled and owns the pool, Bob is entitled through his group, Charlie is a stranger, Dana the administrator.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from broker.domain.leases import LONGEST_H
from broker.domain.permissions import Role
from broker.models import Assignment, AuditEntry, Notice, Pool, Request
from broker.services import approvals, brokering, notices, owners, people, pools
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from tests.broker.portal.cast import Estate


@pytest.fixture
def asked(house: Estate) -> Estate:
    """A pool whose owner is Alice, and which wants her word."""
    set_terms(house, approval="owners")
    owners.appoint(actor=house.dana, pool_id=house.pool.pk, user_id=house.alice.pk)
    return house


def set_terms(house: Estate, **fields: Any) -> None:
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, **fields)


def ask(house: Estate, **wish: Any) -> Request:
    return brokering.request_desktop(user=house.bob, pool_id=house.pool.pk, **wish)[0]


def told(user: User) -> list[str]:
    return list(Notice.objects.filter(user=user).order_by("created_at").values_list("kind", flat=True))


def test_a_request_waits_for_the_owners_word_though_a_desktop_is_ready(asked: Estate) -> None:
    asked.make()
    request = ask(asked)
    assert (request.state, request.desktop_id) == (Request.State.WAITING, None)
    assert brokering.serve_queue(pool_id=asked.pool.pk) == 0
    assert told(asked.alice) == ["request_asked"]
    assert told(asked.dana) == []


def test_approved_it_is_served_at_once_and_its_user_is_told(asked: Estate) -> None:
    free = asked.make()
    request = approvals.decide(actor=asked.alice, request_id=ask(asked).pk, yes=True, words="Welcome")
    assert (request.state, request.desktop_id) == (Request.State.READY, free.pk)
    assert (request.decided_by, request.decision) == (asked.alice, "Welcome")
    assert told(asked.bob) == ["request_approved", "desktop_ready"]
    assert AuditEntry.objects.get(action="request.approve").actor == asked.alice


def test_declined_it_ends_with_the_owners_words_and_may_be_asked_again(asked: Estate) -> None:
    asked.make()
    request = approvals.decide(actor=asked.alice, request_id=ask(asked).pk, yes=False, words="Use the other pool.")
    assert request.state == Request.State.REFUSED
    assert request.ended_at is not None
    assert "Use the other pool." in request.reason
    assert told(asked.bob) == ["request_declined"]
    assert ask(asked).pk != request.pk


@pytest.mark.parametrize("yes", [True, False])
def test_only_owners_and_administrators_may_know_of_it(asked: Estate, yes: bool) -> None:
    request = ask(asked)
    for stranger in (asked.bob, asked.charlie):
        with pytest.raises(Missing):
            approvals.decide(actor=stranger, request_id=request.pk, yes=yes)
    other = asked.open_pool("Other")
    owners.appoint(actor=asked.dana, pool_id=other.pk, user_id=asked.charlie.pk)
    with pytest.raises(Missing):
        approvals.decide(actor=asked.charlie, request_id=request.pk, yes=yes)
    approvals.decide(actor=asked.dana, request_id=request.pk, yes=yes)


def test_a_group_may_own_a_pool_but_nobody_decides_for_themselves(asked: Estate) -> None:
    owners.appoint(actor=asked.dana, pool_id=asked.pool.pk, group_id=asked.staff.pk)
    request = ask(asked)
    assert told(asked.bob) == []
    with pytest.raises(Clash, match="request of their own"):
        approvals.decide(actor=asked.bob, request_id=request.pk, yes=True)
    asked.charlie.groups.add(asked.staff)
    assert approvals.decide(actor=asked.charlie, request_id=request.pk, yes=True).state == Request.State.APPROVED


def test_two_who_decide_at_once_do_it_once(asked: Estate) -> None:
    request = ask(asked)
    approvals.decide(actor=asked.alice, request_id=request.pk, yes=True)
    with pytest.raises(Clash):
        approvals.decide(actor=asked.dana, request_id=request.pk, yes=False)
    request.refresh_from_db()
    assert request.state == Request.State.APPROVED
    assert told(asked.bob) == ["request_approved"]


def test_many_are_decided_each_for_itself(asked: Estate) -> None:
    request = ask(asked)
    gone = brokering.cancel_request(actor=asked.bob, request_id=ask(asked).pk)
    again = ask(asked)
    decided = approvals.decide_many(actor=asked.dana, request_ids=[gone.pk, again.pk, again.pk], yes=True)
    assert [one.pk for one in decided.requests] == [again.pk]
    assert [pk for pk, _ in decided.refused] == [request.pk]


def test_members_of_the_trusted_group_need_nobodys_word(asked: Estate) -> None:
    set_terms(asked, trusted_group_id=asked.staff.pk)
    free = asked.make()
    assert ask(asked).desktop_id == free.pk
    Assignment.objects.filter(user=asked.bob).delete()
    Request.objects.filter(user=asked.bob).delete()
    assert ask(asked).state == Request.State.APPROVED


def test_a_pool_without_owners_asks_the_administrators(house: Estate) -> None:
    set_terms(house, approval="owners")
    ask(house)
    assert told(house.dana) == ["request_asked"]


def test_what_waits_is_approved_when_the_pool_asks_nobody_any_more(asked: Estate) -> None:
    request = ask(asked)
    set_terms(asked, approval="none")
    request.refresh_from_db()
    assert request.state == Request.State.APPROVED
    assert told(asked.bob) == ["request_approved"]


def test_a_required_reason_is_asked_for_beside_its_field_and_nothing_is_taken(house: Estate) -> None:
    set_terms(house, asks_why="required")
    free = house.make()
    with pytest.raises(Invalid) as refused:
        ask(house, why="  ")
    assert list(refused.value.fields) == ["why"]
    assert not Request.objects.filter(user=house.bob).exists()
    request = ask(house, why=" Accounts of November ")
    assert (request.desktop_id, request.why) == (free.pk, "Accounts of November")


@pytest.mark.parametrize(
    ("terms", "hours"),
    [
        ({}, 8),
        ({"lease_h": 24}, 8),
        ({"lease_h": 24, "asks_how_long": True}, 25),
        ({"lease_h": 24, "asks_how_long": True}, 0),
        ({"lease_h": 24, "asks_how_long": True}, LONGEST_H + 1),
    ],
)
def test_nobody_asks_for_longer_than_the_pool_gives(house: Estate, terms: dict[str, Any], hours: int) -> None:
    set_terms(house, **terms)
    house.make()
    with pytest.raises(Invalid) as refused:
        ask(house, hours=hours)
    assert list(refused.value.fields) == ["hours"]
    assert not Assignment.objects.filter(user=house.bob).exists()


def given(house: Estate, user: User, role: Role) -> User:
    """The user as they are with that role."""
    return people.set_role(actor=house.dana, user_id=user.pk, role=role)


def test_the_help_desk_decides_for_others_but_not_for_themselves(asked: Estate) -> None:
    request = ask(asked)
    with pytest.raises(Clash, match="request of their own"):
        approvals.decide(actor=given(asked, asked.bob, Role.HELP_DESK), request_id=request.pk, yes=True)
    charlie = given(asked, asked.charlie, Role.HELP_DESK)
    assert approvals.decide(actor=charlie, request_id=request.pk, yes=True).decided_by == charlie


def test_who_only_sees_decides_nothing(asked: Estate) -> None:
    with pytest.raises(Missing):
        approvals.decide(actor=given(asked, asked.charlie, Role.AUDITOR), request_id=ask(asked).pk, yes=True)


def test_of_a_pool_without_owners_those_are_told_who_may_decide(house: Estate) -> None:
    given(house, house.charlie, Role.AUDITOR)
    assert notices.responsible_for(house.pool.pk) == [house.dana.pk]
    given(house, house.charlie, Role.HELP_DESK)
    assert notices.responsible_for(house.pool.pk) == [house.charlie.pk, house.dana.pk]


def test_pools_that_contradict_themselves_are_refused(house: Estate) -> None:
    for fields, wrong in (
        ({"asks_how_long": True}, "asks_how_long"),
        ({"asks_how_long": True, "lease_h": None}, "lease_h"),
        ({"approval": "everybody"}, "approval"),
        ({"asks_why": "perhaps"}, "asks_why"),
        ({"lease_h": 0}, "lease_h"),
        ({"notice_h": 0}, "notice_h"),
        ({"trusted_group_id": 4711}, "trusted_group_id"),
    ):
        with pytest.raises(Invalid) as refused:
            set_terms(house, **fields)
        assert wrong in refused.value.fields
    assert Pool.objects.get(pk=house.pool.pk).terms.lease_h is None


def test_owners_are_appointed_once_and_dismissed_by_administrators_only(house: Estate) -> None:
    owner, is_new = owners.appoint(actor=house.dana, pool_id=house.pool.pk, user_id=house.alice.pk)
    assert is_new
    assert owners.appoint(actor=house.dana, pool_id=house.pool.pk, user_id=house.alice.pk) == (owner, False)
    with pytest.raises(Forbidden):
        owners.appoint(actor=house.alice, pool_id=house.pool.pk, user_id=house.bob.pk)
    with pytest.raises(Forbidden):
        owners.dismiss(actor=house.alice, owner_id=owner.pk)
    for wrong in ({}, {"user_id": house.bob.pk, "group_id": house.staff.pk}, {"user_id": 4711}, {"group_id": 4711}):
        with pytest.raises(Invalid):
            owners.appoint(actor=house.dana, pool_id=house.pool.pk, **wrong)
    owners.dismiss(actor=house.dana, owner_id=owner.pk)
    assert not owners.owns(house.alice, house.pool.pk)
