"""Failovers by API: tests, moves, emergencies, whole pools, what they cost, and every refusal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from django.utils import timezone

from broker.domain.failover import Step
from broker.models import Desktop, Failover, Hypervisor, ReplicationPolicy, ReplicationRun, ReplicationSource
from broker.services import movers
from tests.broker.api.conftest import Answer, Caller, Callers
from tests.broker.plant import Plant
from tests.broker.services.movable import House

pytestmark = pytest.mark.django_db
BASE = "/replication/failovers"


@pytest.fixture
def made(db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    movers._stopping.clear()
    # Its thread would not see the rows of the test's transaction.
    monkeypatch.setattr(movers, "_have_a_keeper", lambda: None)
    plant = Plant(tmp_path)
    yield House(plant, tmp_path / "vault")
    plant.close()


@pytest.fixture
def dana(made: House, calling: Callers) -> Caller:
    return calling(made.plant.dana)


def target(made: House, **more: object) -> dict[str, object]:
    at = made.target
    return {"hypervisor_id": str(at.hypervisor_id), "storage_id": str(at.storage_id)} | more


def move_of(made: House, **more: object) -> dict[str, object]:
    return target(made, desktop_id=str(made.desktop.pk), vault_id=str(made.vault.pk)) | more


def goes_down(made: House) -> None:
    Hypervisor.objects.filter(name=made.here).update(status="down", retry_at=timezone.now() + timedelta(hours=1))


def refused(answer: Answer, status: int, words: str, field: str = "") -> None:
    assert (answer.status, answer.media_type) == (status, "application/problem+json"), answer
    assert words in (answer.body["fields"][field] if field else answer.body["detail"])


def test_a_desktop_is_moved_and_followed_to_its_end(made: House, dana: Caller) -> None:
    asked = dana.post(f"{BASE}/move", move_of(made))
    assert asked.status == 202
    shown = asked.body
    assert (shown["kind"], shown["state"], shown["step"]) == ("move", "running", "waiting")
    assert (shown["step_in_words"], shown["requested_by"]) == ("Waits for its turn", "dana")
    assert (shown["down_s"], shown["lost_s"], shown["recovery_s"]) == (None, None, None)
    assert (shown["report"], shown["digest"]) == ([], "")
    desktop = f"/desktops/{made.desktop.pk}"
    assert dana.get(desktop).body["is_moving"] is False, "its user works on"
    made.at(Failover.objects.get(pk=shown["id"]), Step.LAST_COPY)
    assert dana.get(desktop).body["is_moving"] is True
    assert dana.get(f"{BASE}/{shown['id']}").body["down_s"] > 0
    row = made.end(Failover.objects.get(pk=shown["id"]))
    assert row.stopped_at is not None
    assert row.answered_at is not None
    done = dana.get(f"{BASE}/{shown['id']}").body
    assert (done["state"], done["step"], done["error"]) == ("done", "over", "")
    down_s = (row.answered_at - row.stopped_at).total_seconds()
    assert (done["down_s"], done["lost_s"], done["recovery_s"]) == (down_s, 0.0, down_s)
    steps = [line["step"] for line in done["report"]]
    assert steps[:2] == ["Waits for its turn", "Copies it while its user works"]
    assert all(line["is_good"] and line["at"].endswith("Z") for line in done["report"])
    assert done["digest"] == row.digest
    assert (done["old_machine_id"], done["machine_id"]) == (made.desktop.machine_id, row.machine_id)
    (listed,) = dana.get(BASE).body["items"]
    assert listed == {name: value for name, value in done.items() if name not in ("report", "digest")}


def test_a_recovery_point_is_tested_with_what_would_have_been_lost(made: House, dana: Caller) -> None:
    made.replicate()
    point = ReplicationRun.objects.get(kind="replicate").point
    assert point is not None
    asked = dana.post(f"{BASE}/test", target(made, point_id=str(point.pk)))
    assert asked.status == 202
    row = made.end(Failover.objects.get(pk=asked.body["id"]))
    done = dana.get(f"{BASE}/{row.pk}").body
    assert (done["state"], done["down_s"], done["machine_id"]) == ("done", None, "")
    assert done["lost_s"] == (row.created_at - point.taken_at).total_seconds()
    assert done["recovery_s"] > 0
    assert done["recovery_point"] == str(point.pk)


def test_a_desktop_is_brought_up_when_its_hypervisor_is_lost(made: House, dana: Caller) -> None:
    wish = target(made, desktop_id=str(made.desktop.pk))
    refused(dana.post(f"{BASE}/emergency", wish), 409, "Move the desktop instead")
    refused(dana.post(f"{BASE}/emergency", wish | {"even_if_up": True}), 409, "no recovery point")
    made.replicate()
    goes_down(made)
    refused(dana.post(f"{BASE}/move", move_of(made)), 409, "Bring up its newest recovery point instead")
    refused(dana.post(f"{BASE}/emergency", wish | {"point_id": str(uuid4())}), 422, "no recovery point", "point_id")
    asked = dana.post(f"{BASE}/emergency", wish)
    assert (asked.status, asked.body["kind"]) == (202, "emergency")
    assert asked.body["lost_s"] >= 0


def test_a_failover_is_cancelled_once(made: House, dana: Caller) -> None:
    path = f"{BASE}/{dana.post(f'{BASE}/move', move_of(made)).body['id']}"
    refused(dana.post(f"{BASE}/move", move_of(made)), 409, "being moved already")
    cancelled = dana.post(f"{path}/cancel")
    assert (cancelled.status, cancelled.body["is_to_end"]) == (202, True)
    made.end(Failover.objects.get())
    assert dana.get(path).body["state"] == "cancelled"
    refused(dana.post(f"{path}/cancel"), 409, "It is over")
    for method, address in (("GET", f"{BASE}/{uuid4()}"), ("POST", f"{BASE}/{uuid4()}/cancel")):
        refused(dana(method, address), 404, "no such failover")


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"hypervisor_id": str(uuid4())}, "hypervisor_id", "does not build there"),
        ({"storage_id": str(uuid4())}, "storage_id", "no such storage"),
        ({"vault_id": str(uuid4())}, "vault_id", "no such vault"),
        ({"network_ids": [str(uuid4())]}, "network_ids", "has no network"),
        ({"colour": "red"}, "colour", "not permitted"),
    ],
)
def test_a_move_that_cannot_be_is_refused_field_by_field(
    made: House, dana: Caller, fields: dict[str, object], field: str, words: str
) -> None:
    refused(dana.post(f"{BASE}/move", move_of(made, **fields)), 422, words, field)
    assert dana.get(BASE).body["total"] == 0


def test_where_nothing_can_be_brought_up_the_wish_is_refused(made: House, dana: Caller) -> None:
    Hypervisor.objects.filter(name=made.there).update(kind="tape")
    refused(dana.post(f"{BASE}/move", move_of(made)), 422, "Nothing can be brought up on", "hypervisor_id")


def test_a_pool_is_looked_at_and_then_moved_in_one_group(made: House, dana: Caller) -> None:
    path = f"{BASE}/pools/{made.pool.pk}"
    lost = dana.post(f"{path}/dry-run", target(made, kind="emergency", even_if_up=True)).body
    assert (lost["able"], lost["items"][0]["why_not"]) == (0, "It has no recovery point.")
    ahead = dana.post(f"{path}/dry-run", target(made, kind="move"))
    assert ahead.status == 200
    (item,) = ahead.body["items"]
    assert (ahead.body["able"], item["name"], item["why_not"]) == (1, made.desktop.name, "")
    assert (item["desktop"], item["loses_s"], item["recovery_point"]) == (str(made.desktop.pk), None, None)
    assert not Failover.objects.exists()
    refused(dana.post(path, target(made, kind="move")), 422, "Choose the vault", "vault_id")
    begun = dana.post(path, target(made, kind="move", vault_id=str(made.vault.pk)))
    assert begun.status == 202
    (row,) = begun.body["failovers"]
    assert row["group"] == begun.body["group"]
    again = dana.post(path, target(made, kind="move", vault_id=str(made.vault.pk)))
    refused(again, 409, "No desktop of the pool can go there")
    refused(dana.post(f"{BASE}/pools/{uuid4()}/dry-run", target(made, kind="move")), 404, "no such pool")
    assert dana.post(path, target(made, kind="test")).status == 422


def test_a_dry_run_tells_how_old_each_state_is(made: House, dana: Caller) -> None:
    made.replicate()
    path = f"{BASE}/pools/{made.pool.pk}/dry-run"
    (spared,) = dana.post(path, target(made, kind="emergency")).body["items"]
    assert "answers: move it" in spared["why_not"]
    goes_down(made)
    (item,) = dana.post(path, target(made, kind="emergency")).body["items"]
    assert (item["why_not"], item["recovery_point"] is None) == ("", False)
    assert 0 <= item["loses_s"] < 600


def test_failovers_are_listed_newest_first_and_narrowed(made: House, dana: Caller) -> None:
    first = dana.post(f"{BASE}/move", move_of(made)).body["id"]
    other = Desktop.objects.exclude(pk=made.desktop.pk).first()
    assert other is not None
    group = uuid4()
    values = {"vault": made.vault, "hypervisor": made.plant.hypervisor(made.there), "step_since": timezone.now()}
    rows = [
        Failover.objects.create(
            kind="emergency", state="failed", subject=f"x-{place}", desktop=other, group=group, place=place, **values
        )
        for place in (1, 2)
    ]
    ids = [item["id"] for item in dana.get(BASE).body["items"]]
    assert ids == [str(rows[1].pk), str(rows[0].pk), first]
    ordered = [item["id"] for item in dana.get(f"{BASE}?group={group}").body["items"]]
    assert ordered == [str(row.pk) for row in rows], "in the order in which they go"
    for query, total in (
        ("kind=move", 1), ("kind=test", 0), ("state=failed", 2), ("state=running&kind=move", 1),
        (f"desktop={other.pk}", 2), (f"desktop={uuid4()}", 0), (f"group={uuid4()}", 0),
    ):  # fmt: skip
        assert dana.get(f"{BASE}?{query}").body["total"] == total, query
    for name, choices in (("state", Failover.State.values), ("kind", ["test", "move", "emergency"])):
        assert {dana.get(f"{BASE}?{name}={value}").status for value in choices} == {200}
        assert dana.get(f"{BASE}?{name}=sleepy").status == 422


def test_a_desktop_goes_over_to_its_replica_and_what_stands_in_the_way_is_told(made: House, dana: Caller) -> None:
    body = {"desktop_id": str(made.desktop.pk)}
    refused(dana.post(f"{BASE}/planned", body), 409, "No policy watches what its platform replicates")
    mirror = {
        "to": f"{made.there}-1", "state": "healthy", "newest_at": timezone.now().isoformat(), "interval_s": 300,
        "fault": "", "can_fail_over": True,
    }  # fmt: skip
    policy = ReplicationPolicy.objects.create(name="Of the makers", engine="platform", rpo_s=1800)
    ReplicationSource.objects.create(
        policy=policy, hypervisor=made.plant.hypervisor(made.here), platform_id=made.desktop.machine_id, name="x",
        mirrors=[mirror], mirrors_at=timezone.now(),
    )  # fmt: skip
    asked = dana.post(f"{BASE}/planned", body)
    assert asked.status == 202
    assert (asked.body["kind"], asked.body["vault"], asked.body["hypervisor"]) == (
        "planned", None, str(made.plant.hypervisor(made.there).pk),
    )  # fmt: skip
    assert dana.get(f"{BASE}?kind=planned").body["total"] == 1


def test_a_group_is_cancelled_in_one_act_and_says_how_many_were(made: House, dana: Caller) -> None:
    group = dana.post(f"{BASE}/pools/{made.pool.pk}", target(made, kind="move", vault_id=str(made.vault.pk))).body
    address = f"{BASE}/groups/{group['group']}/cancel"
    cancelled = dana.post(address)
    assert (cancelled.status, cancelled.body) == (202, {"cancelled": len(group["failovers"]), "left": 0})
    refused(dana.post(address), 409, "None of them can be cancelled")
    assert dana.post(f"{BASE}/groups/{uuid4()}/cancel").status == 404
