"""Sessions by API: one's own, everybody's for who has a role; disconnected, logged off, told."""

from __future__ import annotations

from uuid import UUID

import pytest

from broker.models import DesktopSession, Notice, Pool
from broker.services import screens
from tests.broker.api.conftest import Callers
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


@pytest.fixture
def session(house: Estate) -> DesktopSession:
    """Alice's, on her desktop."""
    admission = screens.Admission(UUID(int=0), house.desktop.pk, house.desktop.epoch, house.alice.pk, "vnc")
    screens.start_session(admission=admission, address="192.0.2.7")
    return DesktopSession.objects.get()


def test_everybody_sees_their_own_and_who_has_a_role_sees_all(
    house: Estate, session: DesktopSession, calling: Callers
) -> None:
    (mine,) = calling(house.alice).get("/sessions").body["items"]
    assert (mine["id"], mine["state"], mine["client"], mine["address"], mine["desktop_name"]) == (
        str(session.pk), "connected", "browser", "192.0.2.7", "office-001",
    )  # fmt: skip
    assert calling(house.dana).get("/sessions").body["total"] == 1
    assert calling(house.bob).get("/sessions").body == {"items": [], "total": 0}
    assert calling(house.bob).get(f"/sessions/{session.pk}").status == 404
    assert calling(house.dana).get("/sessions?state=idle").body["total"] == 0
    assert calling(house.dana).get(f"/sessions?pool={house.pool.pk}&desktop={house.desktop.pk}").body["total"] == 1
    assert calling(house.dana).get("/sessions?state=asleep").status == 422


def test_a_session_is_disconnected_told_and_logged_off(
    house: Estate, session: DesktopSession, calling: Callers
) -> None:
    bob, dana, path = calling(house.bob), calling(house.dana), f"/sessions/{session.pk}"
    for act in ("disconnect", "log-off"):
        assert bob.post(f"{path}/{act}").status == 404
    assert bob.post(f"{path}/notice", {"words": "Hello"}).status == 403
    assert dana.post(f"{path}/notice", {"words": "We restart at noon."}).status == 204
    assert Notice.objects.get(user=house.alice).facts["words"] == "We restart at noon."
    assert dana.post(f"{path}/notice", {"words": ""}).status == 422
    assert dana.post(f"{path}/disconnect").body["state"] == "disconnected"
    assert dana.post(f"{path}/disconnect").status == 409
    order = calling(house.alice).post(f"{path}/log-off")
    assert (order.status, order.body["kind"]) == (202, "recycle")
    assert dana.post(f"{path}/log-off").status == 409
    assert dana.get("/sessions").body["total"] == 0
    assert dana.get("/sessions?state=logged_off").body["items"][0]["reason"] == "Released."


def test_a_pools_timers_are_read_and_set(house: Estate, calling: Callers) -> None:
    timers = {"idle_min": 30, "disconnected_min": 120, "longest_min": None}
    changed = calling(house.dana)("PATCH", f"/pools/{house.pool.pk}", timers)
    assert changed.status == 200
    assert {name: changed.body[name] for name in timers} == timers
    assert Pool.objects.get(pk=house.pool.pk).idle_min == 30
    assert calling(house.dana)("PATCH", f"/pools/{house.pool.pk}", {"idle_min": 0}).status == 422
