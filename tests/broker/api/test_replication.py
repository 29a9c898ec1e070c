"""Replication by API: vaults, policies with their machines, runs, recovery points, and every refusal."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.models import AuditEntry, RecoveryPoint, ReplicationRun, ReplicationSource, RpoBreach, Standby, Vault
from broker.services import movers, replication_runs
from connectors.replication import Mirror, MirrorState
from tests.broker.api.conftest import Answer, Caller, Callers
from tests.broker.plant import Plant
from tests.broker.services.replicas import Replicas
from tests.doubles.instant import mirrors

pytestmark = pytest.mark.django_db
BASE = "/replication"


@pytest.fixture
def made(db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replicas]:
    movers._stopping.clear()
    # Its thread would not see the rows of the test's transaction.
    monkeypatch.setattr(movers, "_have_a_keeper", lambda: None)
    plant = Plant(tmp_path)
    yield Replicas(plant, tmp_path / "vault")
    plant.close()


@pytest.fixture
def dana(made: Replicas, calling: Callers) -> Caller:
    return calling(made.plant.dana)


def policy_of(made: Replicas, **fields: object) -> dict[str, object]:
    choices = [{"kind": "machine", "machine_id": str(made.row().pk)}]
    wish = {"name": "Nightly", "vault_id": str(made.vault.pk), "interval_s": 3600, "rpo_s": 7200, "choices": choices}
    return wish | fields


def replicated(made: Replicas, dana: Caller) -> tuple[str, str]:
    """A policy with one point; the ids of both."""
    policy = dana.post(f"{BASE}/policies", policy_of(made)).body["id"]
    dana.post(f"{BASE}/policies/{policy}/run")
    made.work()
    return policy, dana.get(f"{BASE}/recovery-points").body["items"][0]["id"]


def refused(answer: Answer, status: int, words: str, field: str = "") -> None:
    assert (answer.status, answer.media_type) == (status, "application/problem+json"), answer
    assert words in (answer.body["fields"][field] if field else answer.body["detail"])


# --- vaults -----------------------------------------------------------------------------------------------------------


def test_a_vault_is_made_with_a_key_that_is_shown_once(made: Replicas, dana: Caller, tmp_path: Path) -> None:
    key = dana.post(f"{BASE}/vaults/key").body["key"]
    assert len(base64.b64decode(key)) == 32
    assert dana.post(f"{BASE}/vaults/key").body["key"] != key
    (tmp_path / "safe").mkdir()
    place = {"path": str(tmp_path / "safe")}
    answer = dana.post(f"{BASE}/vaults", {"name": "Safe", "kind": "folder", "location": place, "key": key})
    assert answer.status == 201
    assert (answer.body["is_encrypted"], answer.body["status"], answer.body["location"]) == (True, "up", place)
    shown = dana.get(f"{BASE}/vaults/{answer.body['id']}").body
    assert shown == answer.body
    assert key not in str(shown)
    assert key.encode() not in bytes(Vault.objects.get(name="Safe").secrets)
    assert key not in str(list(AuditEntry.objects.values_list("changes", flat=True)))
    assert [item["name"] for item in dana.get(f"{BASE}/vaults").body["items"]] == ["Safe", "Cellar"], "newest first"


def test_a_vault_is_changed_in_part_and_removed(made: Replicas, dana: Caller) -> None:
    path = f"{BASE}/vaults/{made.vault.pk}"
    assert dana("PATCH", path, {"name": "Basement"}).body["location"] == {"path": str(made.folder)}
    refused(dana("PATCH", path, {"location": {"path": "/nowhere/at/all"}}), 422, "is not there", "location")
    refused(dana("PATCH", path, {"key": "short"}), 422, "32 bytes", "key")
    policy = dana.post(f"{BASE}/policies", policy_of(made)).body["id"]
    refused(dana("DELETE", path), 409, "is the vault of Nightly")
    assert dana("DELETE", f"{BASE}/policies/{policy}").status == 204
    assert dana("DELETE", path).status == 204
    refused(dana.get(path), 404, "no such vault")
    assert (made.folder / "vault.json").exists(), "what lies there stays"


@pytest.mark.parametrize(
    ("wish", "field", "words"),
    [
        ({"kind": "folder", "location": {}}, "path", "whole path"),
        ({"kind": "folder", "location": {"path": "/x", "colour": "red"}}, "colour", "no such setting"),
        ({"kind": "s3", "location": {}}, "bucket", "bucket's name"),
        ({"kind": "s3", "location": {"bucket": "b", "endpoint": "ftp://x"}}, "endpoint", "https://"),
        ({"kind": "folder", "location": {"path": "/x"}, "key": "é"}, "key", "32 bytes"),
        ({"kind": "tape", "location": {}}, "kind", "folder"),
        ({"kind": "folder", "location": {"path": "/x"}, "name": "cellar"}, "name", "already a vault"),
    ],
)
def test_a_vault_that_cannot_be_is_refused_field_by_field(
    made: Replicas, dana: Caller, wish: dict[str, object], field: str, words: str
) -> None:
    refused(dana.post(f"{BASE}/vaults", {"name": "New"} | wish), 422, words, field)
    assert Vault.objects.count() == 1


# --- policies ---------------------------------------------------------------------------------------------------------


def test_a_policy_is_made_with_its_machines_and_tells_how_they_stand(made: Replicas, dana: Caller) -> None:
    wish = policy_of(made, bytes_a_second=5_000_000, window_from="08:00", window_to="18:30", zone="Europe/Berlin")
    answer = dana.post(f"{BASE}/policies", wish)
    assert answer.status == 201
    shown = answer.body
    assert (shown["window_from"], shown["window_to"], shown["keep_daily"]) == ("08:00", "18:30", 7)
    assert (shown["machines"], shown["machines_broken"], shown["machines_without_point"]) == (1, 0, 1)
    assert [(one["kind"], one["name"]) for one in shown["choices"]] == [("machine", "alpha")]
    assert shown["next_run_at"].endswith("Z")
    listed = dana.get(f"{BASE}/policies").body["items"]
    assert listed == [{name: value for name, value in shown.items() if name != "choices"}]


def test_a_policy_is_changed_in_part_and_paused(made: Replicas, dana: Caller) -> None:
    path = f"{BASE}/policies/{dana.post(f'{BASE}/policies', policy_of(made)).body['id']}"
    assert dana("PATCH", path, {"cron": "30 2 * * *"}).body["interval_s"] is None
    assert dana("PATCH", path, {"interval_s": 7200}).body["cron"] == ""
    doubted = dana("PATCH", path, {"rpo_s": 3600, "is_enabled": False}).body
    assert "cannot be kept" in doubted["warning"]
    assert (doubted["is_enabled"], doubted["next_run_at"]) == (False, None)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"name": ""}, "name", "Give a name"),
        ({"interval_s": 5}, "interval_s", "from 60"),
        ({"interval_s": None}, "interval_s", "one of them"),
        ({"interval_s": None, "cron": "now and then"}, "cron", "five fields"),
        ({"rpo_s": 0}, "rpo_s", "from 60"),
        ({"rpo_s": 10**30}, "rpo_s", "from 60"),
        ({"keep_last": 0}, "keep_last", "from 1"),
        ({"zone": "Mars"}, "zone", "time zone"),
        ({"window_from": "08:00"}, "window_to", "both ends"),
        ({"window_from": "8 o'clock"}, "window_from", "pattern"),
        ({"window_from": "08:00Z", "window_to": "09:00"}, "window_from", "pattern"),
        ({"bytes_a_second": 3}, "bytes_a_second", "from 100000"),
        ({"verification": "hope"}, "verification", "digest"),
        ({"vault_id": str(uuid4())}, "vault_id", "no such vault"),
        ({"colour": "red"}, "colour", "not permitted"),
        ({"choices": [{"kind": "machine", "machine_id": str(uuid4())}]}, "machine_id", "no such machine"),
        ({"choices": [{"kind": "machine"}]}, "machine_id", "no such machine"),
        ({"choices": [{"kind": "pool", "pool_id": str(uuid4())}]}, "pool_id", "no such pool"),
        ({"choices": [{"kind": "planet"}]}, "kind", "template"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_field_by_field(
    made: Replicas, dana: Caller, fields: dict[str, object], field: str, words: str
) -> None:
    refused(dana.post(f"{BASE}/policies", policy_of(made, **fields)), 422, words, field)
    assert dana.get(f"{BASE}/policies").body["total"] == 0


def test_machines_are_chosen_and_taken_out_one_by_one(made: Replicas, dana: Caller) -> None:
    path = f"{BASE}/policies/{dana.post(f'{BASE}/policies', policy_of(made)).body['id']}"
    wish = {"kind": "machine", "machine_id": str(made.row(1).pk), "disks": ["disk-1"]}
    choice = dana.post(f"{path}/choices", wish)
    assert (choice.status, choice.body["name"], choice.body["disks"]) == (201, "beta", ["disk-1"])
    refused(dana.post(f"{path}/choices", wish), 409, "already")
    assert [one["name"] for one in dana.get(f"{path}/sources").body["items"]] == ["alpha", "beta"]
    assert dana("DELETE", f"{path}/choices/{choice.body['id']}").status == 204
    refused(dana("DELETE", f"{path}/choices/{choice.body['id']}"), 404, "no such choice")
    assert [one["is_chosen"] for one in dana.get(f"{path}/sources").body["items"]] == [True, False]


def test_a_choice_of_another_policy_is_not_taken_out(made: Replicas, dana: Caller) -> None:
    first = dana.post(f"{BASE}/policies", policy_of(made)).body
    other = dana.post(f"{BASE}/policies", policy_of(made, name="Other")).body
    foreign = f"{BASE}/policies/{other['id']}/choices/{first['choices'][0]['id']}"
    refused(dana("DELETE", foreign), 404, "no such choice")


def test_a_machine_tells_how_old_its_newest_point_is_and_what_it_could_keep(made: Replicas, dana: Caller) -> None:
    policy, _point = replicated(made, dana)
    ReplicationSource.objects.update(took_s=30.0, whole="It is the first point.")
    (source,) = dana.get(f"{BASE}/policies/{policy}/sources").body["items"]
    assert 0 <= source["age_s"] < 60
    assert (source["rpo_s"], source["is_kept"], source["broken_since"]) == (7200, True, None)
    assert (source["took_s"], source["smallest_rpo_s"], source["fault"]) == (30.0, 60.0, "")
    assert source["whole"] == "It is the first point."
    long_ago = timezone.now() - timedelta(seconds=7300)
    ReplicationSource.objects.update(newest_at=long_ago, breaks_at=long_ago + timedelta(seconds=7200), fault="No room.")
    (source,) = dana.get(f"{BASE}/policies/{policy}/sources").body["items"]
    assert (source["is_kept"], source["fault"]) == (False, "No room.")
    assert source["broken_since"].endswith("Z")
    assert dana.get(f"{BASE}/policies/{policy}").body["machines_broken"] == 1


def test_the_ledger_tells_since_when_until_when_and_why(made: Replicas, dana: Caller) -> None:
    policy, _point = replicated(made, dana)
    now = timezone.now()
    source = made.source()
    RpoBreach.objects.create(source=source, since=now - timedelta(hours=5), until=now - timedelta(hours=4), reason="A")
    RpoBreach.objects.create(source=source, since=now - timedelta(minutes=90), reason="B")
    found = dana.get(f"{BASE}/policies/{policy}/breaches").body["items"]
    assert [(one["minutes"], one["reason"], one["name"]) for one in found] == [(90, "B", "alpha"), (60, "A", "alpha")]
    assert [one["until"] is None for one in found] == [True, False]
    assert dana.get(f"{BASE}/policies/{policy}/sources").body["items"][0]["broken_minutes"] == 150


def test_what_hangs_from_no_policy_is_not_found(made: Replicas, dana: Caller) -> None:
    for method, path in (
        ("GET", "policies/{id}"), ("PATCH", "policies/{id}"), ("DELETE", "policies/{id}"),
        ("POST", "policies/{id}/run"), ("GET", "policies/{id}/sources"), ("GET", "policies/{id}/breaches"),
        ("GET", "runs/{id}"),
        ("POST", "runs/{id}/cancel"), ("GET", "recovery-points/{id}"), ("POST", "recovery-points/{id}/verify"),
        ("DELETE", "recovery-points/{id}"), ("GET", "vaults/{id}"), ("PATCH", "vaults/{id}"), ("DELETE", "vaults/{id}"),
    ):  # fmt: skip
        address = f"{BASE}/{path.replace('{id}', str(uuid4()))}"
        refused(dana(method, address, {} if method == "PATCH" else None), 404, "There is no such")


def test_a_policy_keeps_standbys_and_tells_what_each_holds(made: Replicas, dana: Caller) -> None:
    made.plant.add_hypervisor("instant-2")
    there = made.plant.hypervisor("instant-2")
    storage = there.storages.get()
    refused(
        dana.post(f"{BASE}/policies", policy_of(made, keeps_standby=True)),
        422, "Choose where the machines stand by.", "target_storage_id",
    )  # fmt: skip
    wish = policy_of(made, keeps_standby=True, target_storage_id=str(storage.pk), verification="boot")
    policy = dana.post(f"{BASE}/policies", wish).body
    assert (policy["target"], policy["target_storage"]) == (str(there.pk), storage.platform_id)
    assert (policy["keeps_standby"], policy["standby_every_s"], policy["verification"]) == (True, 86_400, "boot")
    assert dana.get(f"{BASE}/policies/{policy['id']}/sources").body["items"][0]["standby"] is None
    dana.post(f"{BASE}/policies/{policy['id']}/run")
    made.work()
    source = dana.get(f"{BASE}/policies/{policy['id']}/sources").body["items"][0]
    standby = source["standby"]
    point = dana.get(f"{BASE}/recovery-points").body["items"][0]
    assert (standby["point"], standby["taken_at"], standby["hypervisor"]) == (
        point["id"], point["taken_at"], str(there.pk),
    )  # fmt: skip
    assert (standby["is_used"], standby["is_changing"], source["trial_fault"]) == (False, False, "")
    assert source["tried_at"] is not None
    anew = f"{BASE}/policies/{policy['id']}/standbys/{standby['id']}/anew"
    refused(dana.post(anew), 409, "waits as it should")
    Standby.objects.update(is_used=True)
    assert dana.post(anew).status == 204
    made.work()
    again = dana.get(f"{BASE}/policies/{policy['id']}/sources").body["items"][0]["standby"]
    assert again["machine_id"] != standby["machine_id"]


def test_machines_are_tagged_and_chosen_by_their_tag(made: Replicas, dana: Caller) -> None:
    machine = made.row()
    address = f"/hypervisors/{machine.hypervisor_id}/machines"
    assert dana("PUT", f"{address}/{machine.pk}/tags/tier 1").status == 204
    listed = {one["id"]: one["tags"] for one in dana.get(address).body["items"]}
    assert listed[str(machine.pk)] == ["tier 1"]
    assert [one for one in listed.values() if one] == [["tier 1"]]
    choices = [{"kind": "tag", "tag": "tier 1"}]
    policy = dana.post(f"{BASE}/policies", policy_of(made, choices=choices)).body
    assert [(one["kind"], one["tag"], one["name"]) for one in policy["choices"]] == [("tag", "tier 1", "tier 1")]
    assert policy["machines"] == 1
    refused(dana("PUT", f"{address}/{machine.pk}/tags/a,b"), 422, "No commas", "tag")
    assert dana("DELETE", f"{address}/{machine.pk}/tags/tier 1").status == 204
    assert dana.get(f"{BASE}/policies/{policy['id']}").body["machines"] == 0


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_policy_is_run_now_and_its_run_followed(made: Replicas, dana: Caller) -> None:
    policy = dana.post(f"{BASE}/policies", policy_of(made)).body["id"]
    asked = dana.post(f"{BASE}/policies/{policy}/run")
    assert (asked.status, asked.body["total"]) == (202, 1)
    run = asked.body["items"][0]
    assert (run["state"], run["kind"], run["subject"], run["requested_by"]) == ("queued", "replicate", "alpha", "dana")
    assert (run["policy"], run["rate_bytes_s"], run["time_left_s"]) == (policy, None, None)
    refused(dana.post(f"{BASE}/policies/{policy}/run"), 409, "already")
    made.work()
    done = dana.get(f"{BASE}/runs/{run['id']}").body
    assert (done["state"], done["error"], done["percent"], done["time_left_s"]) == ("done", "", 100, None)
    assert done["read_bytes"] > 0
    assert done["recovery_point"] == dana.get(f"{BASE}/recovery-points").body["items"][0]["id"]


def test_a_policy_without_machines_is_not_run(made: Replicas, dana: Caller) -> None:
    policy = dana.post(f"{BASE}/policies", policy_of(made, choices=[])).body["id"]
    refused(dana.post(f"{BASE}/policies/{policy}/run"), 409, "no machine")


def test_a_run_at_work_tells_how_far_how_fast_and_how_long(made: Replicas, dana: Caller) -> None:
    run = replication_runs.run_now(actor=made.plant.dana, policy_id=made.policy().pk)[0]
    began = timezone.now() - timedelta(seconds=10)
    ReplicationRun.objects.filter(pk=run.pk).update(
        state="running", started_at=began, total_bytes=4000, done_bytes=1000, read_bytes=500, step="Copies disk-1"
    )
    shown = dana.get(f"{BASE}/runs/{run.pk}").body
    assert (shown["percent"], shown["step"], shown["done_bytes"]) == (25, "Copies disk-1", 1000)
    assert shown["rate_bytes_s"] == pytest.approx(50, rel=0.3)
    assert shown["time_left_s"] == pytest.approx(30, rel=0.3)


def test_runs_are_listed_newest_first_and_narrowed(made: Replicas, dana: Caller) -> None:
    policy, point = replicated(made, dana)
    dana.post(f"{BASE}/recovery-points/{point}/verify")
    source = dana.get(f"{BASE}/recovery-points/{point}").body["source"]
    other = dana.post(f"{BASE}/policies", policy_of(made, name="Other")).body["id"]
    kinds = [run["kind"] for run in dana.get(f"{BASE}/runs").body["items"]]
    assert kinds == ["verify", "replicate"]
    for query, total in (
        ("kind=verify", 1), ("state=queued", 1), ("state=done&kind=replicate", 1), (f"policy={policy}", 2),
        (f"policy={other}", 0), (f"source={source}", 2), (f"source={uuid4()}", 0),
    ):  # fmt: skip
        assert dana.get(f"{BASE}/runs?{query}").body["total"] == total, query
    for name, choices in (("state", ReplicationRun.State), ("kind", ReplicationRun.Kind)):
        assert {dana.get(f"{BASE}/runs?{name}={value}").status for value in choices.values} == {200}
        assert dana.get(f"{BASE}/runs?{name}=sleepy").status == 422


def test_a_run_is_cancelled_once(made: Replicas, dana: Caller) -> None:
    run = replication_runs.run_now(actor=made.plant.dana, policy_id=made.policy().pk)[0]
    answer = dana.post(f"{BASE}/runs/{run.pk}/cancel")
    assert (answer.status, answer.body["state"], answer.body["is_to_end"]) == (202, "cancelled", True)
    refused(dana.post(f"{BASE}/runs/{run.pk}/cancel"), 409, "has ended: cancelled")


# --- recovery points --------------------------------------------------------------------------------------------------


def test_a_recovery_point_tells_what_is_in_it(made: Replicas, dana: Caller) -> None:
    policy, point = replicated(made, dana)
    shown = dana.get(f"{BASE}/recovery-points/{point}").body
    assert (shown["machine_name"], shown["hypervisor_name"], shown["policy"]) == ("alpha", "instant-1", policy)
    assert (shown["state"], shown["consistency"], shown["verified_at"]) == ("usable", "crash", None)
    assert [disk["name"] for disk in shown["disks"]] == ["disk-1"]
    assert shown["disks"][0]["size_bytes"] == shown["size_bytes"]


def test_recovery_points_are_narrowed_by_machine_vault_and_source(made: Replicas, dana: Caller) -> None:
    _policy, point = replicated(made, dana)
    source = dana.get(f"{BASE}/recovery-points/{point}").body["source"]
    for query, total in (
        (f"source={source}", 1), (f"source={uuid4()}", 0), (f"vault={made.vault.pk}", 1), (f"vault={uuid4()}", 0),
        ("machine_name=ALP", 1), ("machine_name=beta", 0), ("machine_name=%00", 1), ("state=usable", 1),
        ("state=broken", 0),
    ):  # fmt: skip
        assert dana.get(f"{BASE}/recovery-points?{query}").body["total"] == total, query
    for state in RecoveryPoint.State.values:
        assert dana.get(f"{BASE}/recovery-points?state={state}").status == 200


def test_a_recovery_point_is_read_back_once_at_a_time(made: Replicas, dana: Caller) -> None:
    _policy, point = replicated(made, dana)
    run = dana.post(f"{BASE}/recovery-points/{point}/verify")
    assert (run.status, run.body["kind"], run.body["recovery_point"]) == (202, "verify", point)
    refused(dana.post(f"{BASE}/recovery-points/{point}/verify"), 409, "being verified")
    refused(dana("DELETE", f"{BASE}/recovery-points/{point}"), 409, "being read")
    made.work()
    assert dana.get(f"{BASE}/recovery-points/{point}").body["verified_at"] is not None


def test_a_recovery_point_becomes_a_machine(made: Replicas, dana: Caller) -> None:
    _policy, point = replicated(made, dana)
    hypervisor = dana.get("/hypervisors").body["items"][0]
    assert (hypervisor["can_replicate"], hypervisor["can_land"]) == (True, True)
    (storage,) = dana.get(f"/hypervisors/{hypervisor['id']}/storages").body["items"]
    wish = {"hypervisor_id": hypervisor["id"], "storage_id": storage["id"], "name": "alpha-again", "network_ids": []}
    run = dana.post(f"{BASE}/recovery-points/{point}/materialise", wish)
    assert (run.status, run.body["kind"], run.body["subject"]) == (202, "materialise", "alpha-again")
    made.work()
    done = dana.get(f"{BASE}/runs/{run.body['id']}").body
    assert (done["state"], done["error"]) == ("done", "")
    landed = made.world.machine(done["platform_id"])
    assert landed is not None
    assert landed.name == "alpha-again"


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"hypervisor_id": str(uuid4())}, "hypervisor_id", "no such hypervisor"),
        ({"storage_id": str(uuid4())}, "storage_id", "no such storage"),
        ({"name": ""}, "name", "Give a name"),
        ({"name": "x" * 64}, "name", "At most 63"),
        ({"network_ids": [None, str(uuid4())]}, "network_ids", "no network"),
        ({"network_ids": [None] * 65}, "network_ids", "at most 64"),
        ({"network_ids": "all"}, "network_ids", "list"),
    ],
)
def test_a_machine_that_cannot_be_is_refused_field_by_field(
    made: Replicas, dana: Caller, fields: dict[str, object], field: str, words: str
) -> None:
    _policy, point = replicated(made, dana)
    hypervisor = made.plant.hypervisor("instant-1")
    wish = {"hypervisor_id": str(hypervisor.pk), "storage_id": str(hypervisor.storages.get().pk), "name": "x"}
    refused(dana.post(f"{BASE}/recovery-points/{point}/materialise", wish | fields), 422, words, field)


def test_a_damaged_point_does_not_become_a_machine(made: Replicas, dana: Caller) -> None:
    _policy, point = replicated(made, dana)
    RecoveryPoint.objects.update(state="broken", fault="A piece is missing.")
    hypervisor = made.plant.hypervisor("instant-1")
    wish = {"hypervisor_id": str(hypervisor.pk), "storage_id": str(hypervisor.storages.get().pk), "name": "x"}
    refused(dana.post(f"{BASE}/recovery-points/{point}/materialise", wish), 409, "A piece is missing.")


def test_a_recovery_point_is_deleted_by_a_mover(made: Replicas, dana: Caller) -> None:
    _policy, point = replicated(made, dana)
    answer = dana("DELETE", f"{BASE}/recovery-points/{point}")
    assert (answer.status, answer.body["state"]) == (202, "deleting")
    refused(dana("DELETE", f"{BASE}/recovery-points/{point}"), 409, "being deleted")
    made.work()
    refused(dana.get(f"{BASE}/recovery-points/{point}"), 404, "no such recovery point")


# --- cost -------------------------------------------------------------------------------------------------------------

COSTS = {
    "vaults": 3,
    "policies": 3,
    "runs": 3,
    "recovery-points": 3,
    "policies/{id}/sources": 5,
    "policies/{id}/breaches": 4,
}
"""Statements of each list, the token's own among them."""


@pytest.mark.parametrize("noun", COSTS)
def test_a_list_takes_the_same_few_statements_whatever_its_length(made: Replicas, dana: Caller, noun: str) -> None:
    policy = made.policy(0, 1)
    path = f"{BASE}/{noun.replace('{id}', str(policy.pk))}"
    dana.get(path)  # notes the token's use
    now = timezone.now()
    for number in range(8):
        vault = Vault.objects.create(name=f"V{number}", kind="folder", location={"path": "/x"})
        made.policy(name=f"P{number}", vault_id=vault.pk)
        source = ReplicationSource.objects.create(
            policy=policy, hypervisor=made.plant.hypervisor(), platform_id=f"m{number}", name=f"m{number}"
        )
        run = ReplicationRun.objects.create(kind="replicate", source=source, vault=vault, subject=source.name)
        point = RecoveryPoint.objects.create(
            vault=vault, source=source, machine_name="m", taken_at=now, committed_at=now, consistency="off",
            size_bytes=1, new_bytes=1,
        )  # fmt: skip
        ReplicationRun.objects.filter(pk=run.pk).update(point=point)
        RpoBreach.objects.create(source=source, since=now)
    with CaptureQueriesContext(
        connection,
    ) as statements:
        answer = dana.get(path)
    assert answer.body["total"] >= 8
    assert len(statements) == COSTS[noun], [one["sql"] for one in statements]


# --- what platforms replicate by themselves ---------------------------------------------------------------------------


def watching_of(made: Replicas, **fields: object) -> dict[str, object]:
    choices = [{"kind": "machine", "machine_id": str(made.row().pk)}]
    return {"name": "Of the makers", "engine": "platform", "rpo_s": 1800, "choices": choices} | fields


def test_a_policy_that_watches_tells_what_the_platform_told(made: Replicas, dana: Caller) -> None:
    newest = timezone.now() - timedelta(minutes=1)
    state = MirrorState.WARNING
    lame = Mirror(machine=made.machines[0], name="alpha", to="HV-DR", state=state, newest_at=newest, fault="It lags.")
    mirrors.tell(made.world, lame)
    policy = dana.post(f"{BASE}/policies", watching_of(made)).body
    assert (policy["engine"], policy["vault"], policy["interval_s"], policy["cron"]) == ("platform", None, None, "")
    made.plant.look()
    (source,) = dana.get(f"{BASE}/policies/{policy['id']}/sources").body["items"]
    (told,) = source["mirrors"]
    assert (told["to"], told["state"], told["interval_s"], told["can_fail_over"]) == ("HV-DR", "warning", None, False)
    assert source["newest_at"] == told["newest_at"]
    assert (source["fault"], source["next_run_at"], source["is_kept"]) == ("It lags.", None, True)
    assert source["mirrors_at"] is not None


def test_a_policy_that_watches_is_not_run_and_not_made_to_copy(made: Replicas, dana: Caller) -> None:
    policy = dana.post(f"{BASE}/policies", watching_of(made)).body["id"]
    refused(dana.post(f"{BASE}/policies/{policy}/run"), 409, "Start it there")
    refused(dana("patch", f"{BASE}/policies/{policy}", {"interval_s": 60}), 422, "set on the platform", "interval_s")
    refused(dana("patch", f"{BASE}/policies/{policy}", {"engine": "vault"}), 422, "chosen once", "engine")
    refused(dana.post(f"{BASE}/policies", watching_of(made, engine="owls")), 422, "One of", "engine")
    refused(dana.post(f"{BASE}/policies", watching_of(made, engine="vault")), 422, "Choose a vault", "vault_id")
