"""Pushes by API: pushed, followed, cancelled, rolled back, and every refusal."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from broker.models import Push, TemplateCopy, TemplateVersion
from tests.broker.api.conftest import Caller, Callers
from tests.broker.api.test_failovers import refused
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


@pytest.fixture
def dana(house: Estate, calling: Callers) -> Caller:
    return calling(house.dana)


@pytest.fixture
def version(house: Estate) -> TemplateVersion:
    made = TemplateVersion.objects.create(template=house.copy.version.template, number=2)
    TemplateCopy.objects.create(
        version=made, hypervisor=house.hypervisor, platform_id="golden-2", name="golden-2", vcpus=1, memory_mib=512
    )
    return made


def test_it_is_pushed_once_followed_and_rolled_back(house: Estate, version: TemplateVersion, dana: Caller) -> None:
    house.make()
    key = str(uuid4())
    for _ in range(2):
        asked = dana.post(f"/pools/{house.pool.pk}/pushes", {"version_id": str(version.pk), "id": key})
        assert (asked.status, asked.body["id"], asked.body["state"]) == (202, key, "running")
    assert (asked.body["desktops_free"], asked.body["desktops_in_use"], asked.body["desktops_there"]) == (1, 1, 0)
    assert asked.body["before"] == str(house.copy.version_id)
    assert dana.get(f"/pushes/{key}").body == asked.body
    assert dana.get(f"/pools/{house.pool.pk}/pushes").body == {"items": [asked.body], "total": 1}
    back = dana.post(f"/pushes/{key}/roll-back", {})
    assert (back.status, back.body["version"]) == (202, str(house.copy.version_id))
    ended = dana.get(f"/pushes/{key}").body
    assert (ended["state"], ended["reason"]) == ("cancelled", "Debian 12 v1 took its place.")
    assert dana.post(f"/pushes/{back.body['id']}/cancel").body["state"] == "cancelled"


def test_a_deadline_and_a_time_are_taken(house: Estate, version: TemplateVersion, dana: Caller) -> None:
    begins = timezone.now() + timedelta(days=1)
    wish = {
        "version_id": str(version.pk), "starts_at": begins.isoformat(), "users": "deadline", "notice_min": 30,
        "deadline_at": (begins + timedelta(hours=1)).isoformat(),
    }  # fmt: skip
    asked = dana.post(f"/pools/{house.pool.pk}/pushes", wish)
    assert (asked.status, asked.body["state"], asked.body["users"]) == (202, "scheduled", "deadline")
    refused(dana.post(f"/pools/{house.pool.pk}/pushes", wish), 409, "A push to Office is scheduled already.")
    assert house.pool.members.get().copy == house.copy


def test_what_is_wrong_is_said_by_its_field_and_strangers_see_nothing(
    house: Estate, version: TemplateVersion, dana: Caller, calling: Callers
) -> None:
    address = f"/pools/{house.pool.pk}/pushes"
    assert dana.post(address, {"version_id": str(uuid4())}).status == 422
    assert dana.post(address, {"version_id": str(version.pk), "users": "deadline"}).status == 422
    assert dana.post(address, {"version_id": str(house.copy.version_id)}).status == 409
    assert dana.post(f"/pools/{uuid4()}/pushes", {"version_id": str(version.pk)}).status == 404
    assert dana.get(f"/pushes/{uuid4()}").status == 404
    alice = calling(house.alice)
    assert alice.post(address, {"version_id": str(version.pk)}).status == 403
    assert alice.get(address).status == 403
    assert not Push.objects.exists()
