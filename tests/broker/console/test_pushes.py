"""Pushing a version in the console: what is offered, the review that counts, and one push however often it is sent."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.test import Client
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import Desktop, Push, TemplateCopy, TemplateVersion
from tests.broker.console.test_acts import at
from tests.broker.console.test_replication import seen
from tests.broker.portal.cast import Estate


@pytest.fixture
def version(house: Estate) -> TemplateVersion:
    """Another version, where the office builds; the office has three free desktops and Alice's."""
    for _ in range(3):
        house.make()
    made = TemplateVersion.objects.create(template=house.copy.version.template, number=2, note="Patched in June")
    TemplateCopy.objects.create(
        version=made, hypervisor=house.hypervisor, platform_id="golden-2", name="golden-2", vcpus=1, memory_mib=512
    )
    return made


def wish(version: TemplateVersion, **more: object) -> dict[str, object]:
    typed = {"version_id": version.pk, "starts": "now", "users": "leave", "zone": "Europe/Berlin"}
    return typed | {"notice_min": "15 min", "stops_after": 3, "step": "review"} | more


def test_a_version_that_lies_nowhere_is_shown_with_where_to_publish_it(
    house: Estate, version: TemplateVersion, dana: Client
) -> None:
    missing = TemplateVersion.objects.create(template=version.template, number=3)
    page = dana.get(at("pool-push", house.pool.pk))
    assert "Debian 12 v3 It does not lie on kvm-01. Publish Debian 12 v3 there" in seen(page)
    assert at("version-publish", missing.pk) in page.content.decode()
    refused = dana.post(at("pool-push", house.pool.pk), wish(missing))
    assert refused.status_code == 422
    assert not Push.objects.exists()


def test_the_review_counts_and_the_push_is_one_however_often_it_is_sent(
    house: Estate, version: TemplateVersion, dana: Client
) -> None:
    address = at("pool-push", house.pool.pk)
    review = dana.post(address, wish(version))
    words = seen(review)
    assert "Push Debian 12 v2 to Office?" in words
    assert "4 desktops free: rebuilt at once, a few at a time 3 in use: wait for their users 1" in words
    assert not Push.objects.exists()
    key = re.search(r'name="key" value="([^"]+)"', review.content.decode())
    assert key
    sent = wish(version, step="push", key=key[1])
    for _ in range(2):
        answer = dana.post(address, sent, follow=True)
        assert answer.redirect_chain == [(at("pool", house.pool.pk), 302)]
    assert Push.objects.count() == 1
    assert "Push of Debian 12 v2 Cancel Roll back to Debian 12 v1 Going over 0 of 4 on it" in seen(answer)


def test_times_are_those_of_the_chosen_zone(house: Estate, version: TemplateVersion, dana: Client) -> None:
    day = (timezone.now() + timedelta(days=3)).date()
    more = {"starts": "later", "starts_at": f"{day}T22:00", "users": "deadline", "deadline_at": f"{day}T23:30"}
    address = at("pool-push", house.pool.pk)
    review = dana.post(address, wish(version, **more))
    assert "What lies on 1 desktop in use is deleted for good." in seen(review)
    dana.post(address, wish(version, **more, step="push"))
    row = Push.objects.get()
    assert row.state == "scheduled"
    assert row.starts_at == datetime.combine(day, datetime.min.time().replace(hour=22), ZoneInfo("Europe/Berlin"))
    assert row.starts_at.astimezone(UTC).hour in (20, 21)
    assert row.deadline_at == row.starts_at + timedelta(minutes=90)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"starts": "later"}, "Say when it begins."),
        ({"starts": "later", "starts_at": "tomorrow"}, "A date and a time, such as 2026-12-24 18:30."),
        ({"users": "deadline"}, "Say when."),
        ({"notice_min": "soon", "users": "deadline", "deadline_at": "2030-01-01T10:00"}, "soon"),
        ({"stops_after": 0}, "greater than or equal to 1"),
        ({"starts": "later", "starts_at": "2020-01-01T10:00", "step": "push"}, "A moment to come, within a year."),
    ],
)
def test_what_is_wrong_stands_beside_its_field_and_nothing_typed_is_lost(
    house: Estate, version: TemplateVersion, dana: Client, more: dict[str, object], said: str
) -> None:
    answer = dana.post(at("pool-push", house.pool.pk), wish(version, **more))
    page = answer.content.decode()
    assert answer.status_code == 422
    assert said in page
    assert f'value="{version.pk}" checked' in page
    assert 'value="Europe/Berlin" selected' in page
    assert not Push.objects.exists()


def test_going_back_from_the_review_keeps_what_was_typed(house: Estate, version: TemplateVersion, dana: Client) -> None:
    page = dana.post(at("pool-push", house.pool.pk), wish(version, step="edit", notice_min="25 min"))
    assert page.status_code == 200
    assert 'value="25 min"' in page.content.decode()


def test_a_dedicated_pools_review_says_in_red_that_data_is_lost(
    house: Estate, version: TemplateVersion, dana: Client
) -> None:
    house.pool.kind = "dedicated"
    house.pool.save()
    review = dana.post(at("pool-push", house.pool.pk), wish(version))
    assert "A rebuild replaces disks: what its user keeps on a dedicated desktop is deleted for good" in seen(review)
    assert "banner tone-bad" in review.content.decode()


def test_it_is_cancelled_and_rolled_back_on_the_pools_page(
    house: Estate, version: TemplateVersion, dana: Client
) -> None:
    dana.post(at("pool-push", house.pool.pk), wish(version, step="push"))
    row = Push.objects.get()
    assert house.pool.members.get().copy.version == version
    dana.post(at("push-cancel", row.pk))
    row.refresh_from_db()
    assert (row.state, house.pool.members.get().copy) == ("cancelled", house.copy)
    went = Desktop.objects.filter(state=State.READY).first()
    assert went is not None
    went.copy = version.copies.get()
    went.save()
    page = dana.get(at("pool", house.pool.pk))
    assert "Cancelled 1 of 4 on it" in seen(page)
    question = dana.get(at("push-roll-back", row.pk)).content.decode()
    key = re.search(r'name="key" value="([^"]+)"', question)
    assert key
    for _ in range(2):
        dana.post(at("push-roll-back", row.pk), {"key": key[1]})
    back = Push.objects.exclude(pk=row.pk).get()
    assert (back.version, back.state) == (house.copy.version, "running")
    assert "What failed" not in seen(dana.get(at("push", back.pk)))
