"""Failovers in the console: tests of points, moves, emergencies, whole pools, and what is left behind."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.models import (
    AuditEntry,
    Desktop,
    Failover,
    Host,
    Hypervisor,
    LogicalNetwork,
    Network,
    NetworkMapping,
    Operation,
    Pool,
    PoolMember,
    RecoveryPoint,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
    Vault,
)
from tests.broker.console.furniture import Furniture, machine, more_replication
from tests.broker.console.pages import looking_ahead
from tests.broker.console.test_acts import HTMX, at, events_of, text_of
from tests.broker.console.test_replication import seen
from tests.broker.portal.cast import Estate


def movable(furniture: Furniture) -> Desktop:
    """Bound to nothing yet."""
    return furniture.own_pool.desktops.get(name="engineering-005")


def wish_of(furniture: Furniture) -> dict[str, object]:
    there = furniture.elsewhere
    return {"hypervisor": there.pk, "storage": there.storages.get().pk, "vault": furniture.vault.pk}


# --- the list and one of them -----------------------------------------------------------------------------------------


def test_the_list_tells_what_became_of_each_and_is_narrowed(house: Estate, furniture: Furniture, dana: Client) -> None:
    page = seen(dana.get(at("failovers")))
    assert "engineering-002 kvm-01 to elsewhere-01 Move Done nothing 5 min" in page
    assert "engineering-001 kvm-01 to elsewhere-01 Move of a whole pool Copies the last changes 75 %" in page
    assert "ledger-01 on elsewhere-01 Test Failed No sign of life within 900 s; it is on. 2 h 48 min –" in page
    assert "engineering-003 kvm-01 to elsewhere-01 Move of a whole pool Waiting Waits for its turn" in page

    def rows(**query: str) -> int:
        return dana.get(at("failovers"), query).content.decode().count('data-label="When"')

    assert rows() == 6
    assert rows(kind="test") == 2
    assert rows(state="running") == 2
    assert rows(state="failed", kind="move") == 1
    assert rows(q="LEDGER") == 2
    assert rows(desktop=str(furniture.moving.desktop_id)) == 1
    assert "No failover fits" in seen(dana.get(at("failovers"), {"q": "nowhere"}))
    Failover.objects.all().delete()
    assert "Nothing was tried or moved yet" in seen(dana.get(at("failovers")))


def test_a_move_under_way_tells_its_step_its_bytes_and_how_long_its_user_waits(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    answer = dana.get(at("failover", furniture.moving.pk))
    page = seen(answer)
    assert "Move of engineering-001 to elsewhere-01" in page
    assert "Copies vda of engineering-001 75 %" in page
    assert "30 GiB of 40 GiB" in page
    assert "Its user could not work 1 min 1" in page
    assert "s so far" in page
    assert "Copies it while its user works Copied 12 GiB of 40 GiB. It is the first point." in page
    assert "sse:replication" in answer.content.decode()
    assert at("failover-group", furniture.group) in answer.content.decode()
    steps = [(words, state) for words, state in answer.context["progress"].steps]
    assert steps[2:5] == [("Shut down", "done"), ("Last copy", "now"), ("Bring up", "later")]


def test_a_move_that_is_done_tells_what_it_cost_and_what_is_left_to_do(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    page = dana.get(at("failover", furniture.moved.pk))
    assert "Lost nothing Its user could not work 5 min Took in all 12 min" in seen(page)
    assert "What it was before still stands on kvm-01: engineering-002, power off." in seen(page)
    assert f"Digest of this report (SHA-256) {furniture.moved.digest}" in seen(page)
    delete = at("drift-delete", furniture.left_behind.pk)
    assert delete in page.content.decode()
    question = text_of(dana.get(delete))
    assert "Delete the machine engineering-002?" in question
    dana.post(delete, {"typed_name": "engineering-002"})
    order = Operation.objects.get(kind="delete", desktop=None)
    assert order.parameters["machine"] == furniture.left_behind.platform_id
    page = dana.get(at("failover", furniture.moved.pk))
    assert "Being deleted" in seen(page)
    assert delete not in page.content.decode()
    furniture.left_behind.delete()
    assert "still stands" not in seen(dana.get(at("failover", furniture.moved.pk)))


def test_an_old_machine_that_runs_beside_the_new_one_is_warned_of(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    furniture.left_behind.power = "on"
    furniture.left_behind.save()
    assert "It runs beside the new one, with the same name and addresses." in seen(
        dana.get(at("failover", furniture.moved.pk))
    )


def test_an_old_machine_that_is_a_desktop_again_is_not_offered_for_deletion(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    Desktop.objects.filter(name="engineering-005").update(machine_id=furniture.left_behind.platform_id)
    assert "still stands" not in seen(dana.get(at("failover", furniture.moved.pk)))


def test_what_failed_says_why_and_where_things_are_now(house: Estate, furniture: Furniture, dana: Client) -> None:
    failed = Failover.objects.get(kind="test", state="failed")
    page = seen(dana.get(at("failover", failed.pk)))
    assert "Waits for a sign of life Did not go well No sign of life within 900 s; it is on." in page
    assert "The recovery point itself was not touched." in page
    move = Failover.objects.get(kind="move", state="failed")
    assert "The desktop is where it was, on kvm-01." in seen(dana.get(at("failover", move.pk)))
    taken_back = furniture.moving
    Failover.objects.filter(pk=taken_back.pk).update(
        step="taking_back", error="No room.", report=[*taken_back.report, {
            "at": timezone.now().isoformat(), "step": "last_copy", "words": "No room.", "is_good": False,
        }],
    )  # fmt: skip
    answer = dana.get(at("failover", taken_back.pk))
    assert "Being put back" in seen(answer)
    assert "What it made is taken away, what it stopped is started again." in seen(answer)
    assert answer.context["progress"].steps[-1] == ("Put back", "now")
    assert at("failover-cancel", taken_back.pk) not in answer.content.decode()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("copying", "It stays where it is; its user notices nothing."),
        ("last_copy", "What was made on elsewhere-01 is deleted, and it runs again on kvm-01"),
    ],
)
def test_cancelling_asks_first_and_says_what_becomes_of_it(
    house: Estate, furniture: Furniture, dana: Client, step: str, words: str
) -> None:
    Failover.objects.filter(pk=furniture.moving.pk).update(step=step)
    address = at("failover-cancel", furniture.moving.pk)
    question = text_of(dana.get(address))
    assert "Cancel this move of engineering-001?" in question
    assert words in question
    answer = dana.post(address, headers=HTMX)
    assert events_of(answer)["toast"]["text"] == "It is being cancelled."
    page = dana.get(at("failover", furniture.moving.pk))
    assert "Being cancelled" in seen(page)
    assert address not in page.content.decode()
    assert AuditEntry.objects.filter(action="failover.cancel").count() == 1


def test_cancelling_what_is_over_is_refused_in_words(house: Estate, furniture: Furniture, dana: Client) -> None:
    answer = dana.post(at("failover-cancel", furniture.tested.pk))
    assert answer.status_code == 422
    assert "It is over or being put back already." in text_of(answer)
    assert "What was brought up on elsewhere-01 is deleted." in text_of(answer)


# --- tests of recovery points -----------------------------------------------------------------------------------------


def test_a_point_shows_its_tests_with_their_digests(house: Estate, furniture: Furniture, dana: Client) -> None:
    page = dana.get(at("point", furniture.point.pk))
    assert f"on elsewhere-01 Done 2 h 48 min 3 min {furniture.tested.digest[:16]}…" in seen(page)
    assert at("point-test", furniture.point.pk) in page.content.decode()
    Failover.objects.all().delete()
    assert "It was never tested." in seen(dana.get(at("point", furniture.point.pk)))


def test_a_point_is_tested_on_a_network_that_is_kept_apart(house: Estate, furniture: Furniture, dana: Client) -> None:
    address = at("point-test", furniture.point.pk)
    there = furniture.elsewhere
    page = text_of(dana.get(address))
    assert f'value="{there.networks.get(name="quarantine").pk}" selected>quarantine, kept apart<' in page
    wish = {"hypervisor": there.pk, "storage": there.storages.get().pk}
    quarantine = there.networks.get(name="quarantine")
    answer = dana.post(address, wish | {"network": quarantine.pk}, follow=True)
    made = Failover.objects.latest("created_at")
    assert answer.redirect_chain == [(at("failover", made.pk), 302)]
    assert (made.kind, made.point, made.networks) == ("test", furniture.point, ["quarantine"])
    dana.post(address, wish | {"network": ""})
    assert Failover.objects.latest("created_at").networks == [""], "not connected, as it was wanted"


def test_where_no_network_is_kept_apart_a_test_is_not_connected(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    furniture.elsewhere.networks.get(name="quarantine").delete()
    page = text_of(dana.get(at("point-test", furniture.point.pk)))
    assert '<option value="" selected>Not connected</option>' in page


def test_a_damaged_point_is_not_tested(house: Estate, furniture: Furniture, dana: Client) -> None:
    damaged = RecoveryPoint.objects.get(state="broken")
    assert at("point-test", damaged.pk) not in dana.get(at("point", damaged.pk)).content.decode()
    answer = dana.post(at("point-test", damaged.pk), wish_of(furniture))
    assert answer.status_code == 422
    assert "This recovery point is damaged: 1048576 bytes at 0 of disk vda are missing." in text_of(answer)


def test_where_nothing_can_be_made_no_test_is_offered(house: Estate, furniture: Furniture, dana: Client) -> None:
    Hypervisor.objects.update(kind="tape")
    assert at("point-test", furniture.point.pk) not in dana.get(at("point", furniture.point.pk)).content.decode()
    assert "No hypervisor can take it" in seen(dana.get(at("point-test", furniture.point.pk)))


# --- moves ------------------------------------------------------------------------------------------------------------


def test_a_desktop_is_moved_after_it_was_said_what_happens(house: Estate, furniture: Furniture, dana: Client) -> None:
    desktop = movable(furniture)
    address = at("desktop-move", desktop.pk)
    assert address in dana.get(at("desktop", desktop.pk)).content.decode()
    page = seen(dana.get(address))
    assert "It is on kvm-01 now, and stays the desktop of frank with all that lies on it." in page
    assert "It is copied into the vault, while its user works on. All of it: it has no recovery point yet" in page
    assert "The old machine stays on kvm-01, off, until you delete it." in page
    assert "Its network cards go on networks of the same names as before" in page
    answer = dana.post(address, wish_of(furniture), follow=True)
    made = Failover.objects.get(desktop=desktop)
    assert answer.redirect_chain == [(at("failover", made.pk), 302)]
    assert (made.kind, made.hypervisor, made.vault, made.storage) == (
        "move", furniture.elsewhere, furniture.vault, "fast",
    )  # fmt: skip
    shown = dana.get(at("desktop", desktop.pk))
    assert "It is being moved to elsewhere-01." in seen(shown)
    assert "Its user works on." in seen(shown)
    assert address not in shown.content.decode(), "once is enough"
    refused = dana.post(address, wish_of(furniture))
    assert "engineering-005 is being moved already." in text_of(refused)


def test_the_vault_in_which_most_of_it_lies_is_offered_first(house: Estate, furniture: Furniture, dana: Client) -> None:
    desktop = movable(furniture)
    first = Vault.objects.create(name="Attic", kind="folder", location={"path": "/srv/attic"}, status="up")

    def offered() -> list[str]:
        return [
            words for _value, words in dana.get(at("desktop-move", desktop.pk)).context["form"]["vault"].field.choices
        ]

    assert offered() == ["Attic", "Cellar", "Bucket (down)"]
    furniture.policy.sources.create(
        hypervisor=house.hypervisor, platform_id=desktop.machine_id, name=desktop.name, is_chosen=True
    )
    assert offered() == ["Cellar", "Attic", "Bucket (down)"]
    Vault.objects.exclude(pk=first.pk).update(status="down")
    assert offered()[0] == "Cellar (down)"


def test_networks_are_those_on_which_the_pool_builds_there(house: Estate, furniture: Furniture, dana: Client) -> None:
    address = at("desktop-move", movable(furniture).pk)
    office = LogicalNetwork.objects.create(name="Office floor")
    Pool.objects.filter(pk=furniture.own_pool.pk).update(network=office)
    assert "the network Office floor, which has no counterpart on elsewhere-01" in seen(dana.get(address))
    answer = dana.post(address, wish_of(furniture))
    assert "Network Office floor has no counterpart on elsewhere-01." in text_of(answer)
    lan = Network.objects.get(hypervisor=furniture.elsewhere, name="lan")
    NetworkMapping.objects.create(logical=office, hypervisor=furniture.elsewhere, network=lan)
    assert "Its network cards go on lan, as Engineering builds there." in seen(dana.get(address))


def test_a_pool_that_builds_nowhere_else_has_nowhere_to_move_to(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    assert "Its pool builds nowhere else" in seen(dana.get(at("desktop-move", house.desktop.pk)))
    assert at("desktop-move", house.desktop.pk) in dana.get(at("desktop", house.desktop.pk)).content.decode()


def test_without_a_vault_the_way_leads_to_one(house: Estate, furniture: Furniture, dana: Client) -> None:
    ReplicationPolicy.objects.all().delete()
    RecoveryPoint.objects.all().delete()
    Vault.objects.all().delete()
    page = dana.get(at("desktop-move", movable(furniture).pk))
    assert "There is no vault yet" in seen(page)
    assert at("vault-add") in page.content.decode()


def test_a_moving_desktop_shows_how_far_it_is_and_no_button_that_would_be_refused(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    desktop = furniture.moving.desktop
    assert desktop is not None
    answer = dana.get(at("desktop", desktop.pk))
    page = answer.content.decode()
    assert "Being moved" in seen(answer)
    assert "It is being moved to elsewhere-01. Copies the last changes" in seen(answer)
    assert "Its user has been unable to work for 1 min 1" in seen(answer)
    assert "30 GiB of 40 GiB" in seen(answer)
    assert "sse:replication" in page
    for name in ("desktop-power", "desktop-maintenance", "desktop-release", "desktop-retire", "desktop-recycle"):
        assert at(name, desktop.pk) not in page, name
    assert at("failover-cancel", furniture.moving.pk) in page
    assert "engineering-001 Being moved bob" in seen(dana.get(at("desktops")))


# --- emergencies ------------------------------------------------------------------------------------------------------


def test_a_desktop_on_a_lost_hypervisor_is_brought_up_from_its_newest_point(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    desktop = furniture.stranded
    address = at("desktop-bring-up", desktop.pk)
    page = dana.get(at("desktop", desktop.pk)).content.decode()
    assert address in page
    assert at("desktop-move", desktop.pk) not in page, "it does not answer"
    said = seen(dana.get(address))
    assert "Its hypervisor kvm-03 is down." in said
    assert "The point was taken 40 min" in said
    assert "What was done since is lost." in said
    assert "make sure that they do, or two of it run" in said
    answer = dana.post(address, wish_of(furniture), follow=True)
    made = Failover.objects.get(desktop=desktop)
    assert answer.redirect_chain == [(at("failover", made.pk), 302)]
    assert (made.kind, made.point) == ("emergency", RecoveryPoint.objects.get(machine_name="engineering-004"))
    assert "what was done in the last 40 min" in seen(answer)


def test_a_hypervisor_that_came_back_meanwhile_is_not_given_up(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    Hypervisor.objects.filter(name="kvm-03").update(status="up")
    answer = dana.post(at("desktop-bring-up", furniture.stranded.pk), wish_of(furniture))
    assert "kvm-03 answers. Move the desktop instead: then nothing is lost." in text_of(answer)
    assert at("desktop-bring-up", furniture.stranded.pk) not in dana.get(
        at("desktop", furniture.stranded.pk)
    ).content.decode()  # fmt: skip


def test_without_a_point_that_is_said(house: Estate, furniture: Furniture, dana: Client) -> None:
    RecoveryPoint.objects.filter(machine_name="engineering-004").update(state="broken")
    assert "It has no recovery point" in seen(dana.get(at("desktop-bring-up", furniture.stranded.pk)))
    assert dana.post(at("desktop-bring-up", furniture.stranded.pk), wish_of(furniture)).status_code == 200
    assert not Failover.objects.filter(kind="emergency").exists()


# --- whole pools ------------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_what_becomes_of_each_and_changes_nothing(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    address = at("pool-failover", furniture.own_pool.pk)
    assert address in dana.get(at("pool", furniture.own_pool.pk)).content.decode()
    bare = seen(dana.get(address))
    assert "Some of its desktops are on their way already." in bare
    assert "can go" not in bare
    before = Failover.objects.count()
    page = seen(dana.get(f"{address}?{looking_ahead(furniture)}"))
    assert "1 of 4 desktops can go" in page
    assert "engineering-001 kvm-01 Stays It is being moved already." in page
    assert "engineering-004 kvm-03 Stays kvm-03 does not answer." in page
    assert "engineering-005 kvm-01 Moves none nothing" in page
    page = seen(dana.get(f"{address}?{looking_ahead(furniture, 'emergency')}"))
    assert "engineering-004 kvm-03 Is brought up 40 min" in page
    assert "engineering-005 kvm-01 Stays kvm-01 answers: move it, then nothing is lost." in page
    assert "The oldest of the points was taken 40 min" in page
    assert Failover.objects.count() == before


def test_a_pool_is_moved_after_a_question_and_followed_in_its_group(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    address = f"{at('pool-failover-begin', furniture.own_pool.pk)}?{looking_ahead(furniture)}"
    question = text_of(dana.get(address))
    assert "Move 1 desktop of Engineering to elsewhere-01?" in question
    assert "3 are left out; the dry run says why." in question
    answer = dana.post(address, follow=True)
    made = Failover.objects.get(desktop__name="engineering-005")
    assert answer.redirect_chain == [(at("failover-group", made.group), 302)]
    assert (made.kind, made.vault) == ("move", furniture.vault)
    assert "Engineering to elsewhere-01" in seen(answer)
    assert seen(answer).count("It has begun.") == 1
    again = dana.post(address)
    assert again.status_code == 422
    assert "No desktop of the pool can go there." in text_of(again)
    asked = dana.post(address, headers=HTMX)
    assert asked.status_code == 422


def test_an_emergency_of_a_pool_wants_its_name(house: Estate, furniture: Furniture, dana: Client) -> None:
    address = f"{at('pool-failover-begin', furniture.own_pool.pk)}?{looking_ahead(furniture, 'emergency')}"
    assert "What their users did since those points is lost." in text_of(dana.get(address))
    assert dana.post(address).status_code == 422
    assert not Failover.objects.filter(kind="emergency").exists()
    answer = dana.post(address, {"typed_name": "Engineering"}, headers=HTMX)
    made = Failover.objects.get(kind="emergency")
    assert answer.headers["HX-Redirect"] == at("failover-group", made.group)


def test_a_group_counts_those_that_are_there(house: Estate, furniture: Furniture, dana: Client) -> None:
    page = seen(dana.get(at("failover-group", furniture.group)))
    assert "0 of 3 are there 33 %" in page
    assert "1 under way, 1 wait for their turn, 1 did not go well or were cancelled" in page
    Failover.objects.filter(group=furniture.group, state="running").update(state="done", step="over")
    assert "Over, not all went well" in seen(dana.get(at("failover-group", furniture.group)))
    Failover.objects.filter(group=furniture.group).update(state="done", step="over", error="")
    assert "Done" in seen(dana.get(at("failover-group", furniture.group)))
    assert dana.get(at("failover-group", uuid4())).status_code == 404


def test_a_pool_without_a_place_to_go_says_so(house: Estate, furniture: Furniture, dana: Client) -> None:
    Hypervisor.objects.update(kind="tape")
    assert "It has nowhere to go" in seen(dana.get(at("pool-failover", furniture.own_pool.pk)))
    begin = f"{at('pool-failover-begin', furniture.own_pool.pk)}?{looking_ahead(furniture)}"
    assert "Choose where it goes first." in text_of(dana.get(begin))


def test_a_dry_run_and_a_group_take_the_same_statements_for_more_rows(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    addresses = [
        f"{at('pool-failover', furniture.own_pool.pk)}?{looking_ahead(furniture, 'emergency')}",
        at("failover-group", furniture.group),
        at("point", furniture.point.pk),
        at("drift"),
    ]

    def statements() -> list[int]:
        found = []
        for address in addresses:
            with CaptureQueriesContext(connection) as queries:
                assert dana.get(address).status_code == 200
            found.append(len(queries))
        return found

    before = statements()
    for number in range(20):
        more_replication(house.hypervisor, furniture, number)
        user = type(house.alice).objects.create_user(f"more-{number}")
        house.give(user, furniture.own_pool, name=f"more-{number}")
        machine(house.hypervisor, f"left-{number}", stamp_installation=furniture.left_over.stamp_installation)
    assert statements() == before


# --- elsewhere --------------------------------------------------------------------------------------------------------


def test_drift_says_which_machines_replication_left(house: Estate, furniture: Furniture, dana: Client) -> None:
    up = machine(
        house.hypervisor, "ledger-copy", stamp_installation=furniture.left_over.stamp_installation,
        stamp_key=str(uuid4()),
    )  # fmt: skip
    run = ReplicationRun.objects.create(
        kind="materialise", state="done", point=furniture.point, hypervisor=house.hypervisor, subject="ledger-copy",
        platform_id=up.platform_id,
    )  # fmt: skip
    page = dana.get(at("drift"))
    moved = furniture.moved
    assert moved.answered_at is not None
    left = f"Left behind when engineering-002 moved to elsewhere-01 on {moved.answered_at:%Y-%m-%d}."
    assert f"engineering-002 {left}" in seen(page)
    taken = f"{furniture.point.taken_at:%Y-%m-%d %H:%M} UTC"
    assert f"ledger-copy Brought up from the recovery point of ledger-01 of {taken}." in seen(page)
    for address in (at("failover", moved.pk), at("run", run.pk)):
        assert address in page.content.decode()
    Failover.objects.filter(pk=moved.pk).update(state="failed")
    run.hypervisor = furniture.elsewhere
    run.save()
    page = dana.get(at("drift"))
    assert "Left behind" not in seen(page), "a move that did not take place leaves nothing"
    assert "Brought up from" not in seen(page), "ids are unique within one hypervisor only"


def test_the_overview_tells_of_failovers(house: Estate, furniture: Furniture, dana: Client) -> None:
    page = seen(dana.get(at("replication")))
    assert "The move of engineering-002 to elsewhere-01 went well." in page
    assert at("failovers") in dana.get(at("replication")).content.decode()


def test_the_figures_of_a_move_that_failed_count_until_the_old_machine_ran_again(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    now = timezone.now()
    Failover.objects.filter(pk=furniture.moved.pk).update(
        state="failed", error="No sign of life.", answered_at=None, finished_at=now,
        stopped_at=now - timedelta(minutes=4),
    )  # fmt: skip
    page = seen(dana.get(at("failover", furniture.moved.pk)))
    assert "Lost – Its user could not work 4 min" in page


# --- what a platform carries out --------------------------------------------------------------------------------------


@pytest.fixture
def watched(house: Estate, furniture: Furniture) -> ReplicationSource:
    """A desktop whose platform keeps a replica of it on another hypervisor of its pool."""
    here = Hypervisor.objects.create(name="hv-01", kind="instant", status="up")
    there = Hypervisor.objects.create(name="hv-02", kind="instant", status="up")
    Host.objects.create(
        hypervisor=there, platform_id="h", name="HV-DR", vcpus=8, memory_mib=8192, seen_at=timezone.now()
    )
    desktop = movable(furniture)
    Desktop.objects.filter(pk=desktop.pk).update(hypervisor=here)
    member = PoolMember.objects.filter(pool=desktop.pool).first()
    assert member is not None
    PoolMember.objects.filter(pk=member.pk).update(hypervisor=there)
    mirror = {
        "to": "HV-DR.example.org", "state": "healthy", "newest_at": timezone.now().isoformat(), "interval_s": 300,
        "fault": "", "can_fail_over": True,
    }  # fmt: skip
    policy = ReplicationPolicy.objects.create(name="Of the makers", engine="platform", rpo_s=1800)
    return ReplicationSource.objects.create(
        policy=policy, hypervisor=here, platform_id=desktop.machine_id, name=desktop.name, mirrors=[mirror],
        mirrors_at=timezone.now(), newest_at=timezone.now(), breaks_at=timezone.now() + timedelta(minutes=30),
    )  # fmt: skip


def test_a_desktop_goes_over_to_its_replica_after_one_question(
    furniture: Furniture, watched: ReplicationSource, dana: Client
) -> None:
    desktop = movable(furniture)
    page = at("desktop-fail-over", desktop.pk)
    assert page in dana.get(at("policy", watched.policy_id)).content.decode()
    assert page in dana.get(at("desktop", desktop.pk)).content.decode()
    question = text_of(dana.get(page))
    assert "Fail engineering-005 over to hv-02?" in question
    assert "nothing is lost" in question
    dana.post(page)
    made = Failover.objects.get(kind="planned")
    assert (made.desktop, made.hypervisor.name) == (desktop, "hv-02")
    shown = seen(dana.get(at("failover", made.pk)))
    assert "Failover of engineering-005 to hv-02" in shown
    assert "Vault" not in shown
    assert "Planned failover" in seen(dana.get(at("failovers"), {"kind": "planned"}))
    assert "It stays where it is" in text_of(dana.get(at("failover-cancel", made.pk)))
    Failover.objects.filter(pk=made.pk).update(step="probing")
    assert "The replica is one again" in text_of(dana.get(at("failover-cancel", made.pk)))


def test_what_stands_in_the_way_of_a_replica_is_said_instead(
    furniture: Furniture, watched: ReplicationSource, dana: Client
) -> None:
    desktop = movable(furniture)
    Host.objects.filter(name="HV-DR").delete()
    answer = dana.get(at("desktop-fail-over", desktop.pk))
    assert "engineering-005 cannot go over to a replica now." in text_of(answer)
    assert "which is no hypervisor here" in text_of(answer)
    dana.post(at("desktop-fail-over", desktop.pk))
    assert not Failover.objects.filter(kind="planned").exists()


def test_where_the_platform_is_not_driven_nothing_is_offered_and_the_page_says_so(
    furniture: Furniture, watched: ReplicationSource, dana: Client
) -> None:
    Hypervisor.objects.filter(kind="instant").update(kind="nutanix")
    page = dana.get(at("policy", watched.policy_id))
    assert "It is failed over there as well." in seen(page)
    desktop = movable(furniture)
    address = at("desktop-fail-over", desktop.pk)
    assert address not in page.content.decode()
    assert address not in dana.get(at("desktop", desktop.pk)).content.decode()


def test_a_dry_run_says_where_there_may_be_no_room(furniture: Furniture, dana: Client) -> None:
    address = f"{at('pool-failover', furniture.own_pool.pk)}?{looking_ahead(furniture, 'emergency')}"
    assert "May not fit" not in seen(dana.get(address))
    furniture.elsewhere.storages.update(free_mib=0)
    page = seen(dana.get(address))
    assert "There may be no room there for" in page
    assert "May not fit" in page
    assert "has 0 B left for it" in page
    begin = f"{at('pool-failover-begin', furniture.own_pool.pk)}?{looking_ahead(furniture, 'emergency')}"
    assert "There may be no room for" in text_of(dana.get(begin))


# --- a group is cancelled ---------------------------------------------------------------------------------------------


def test_a_group_is_cancelled_in_one_act(furniture: Furniture, dana: Client) -> None:
    page = at("failover-group-cancel", furniture.group)
    assert page in dana.get(at("failover-group", furniture.group)).content.decode()
    assert "Cancel all 2 that are not over?" in text_of(dana.get(page))
    answer = dana.post(page, follow=True)
    assert "2 are being cancelled." in seen(answer)
    assert Failover.objects.filter(group=furniture.group, is_to_end=True).count() == 2
    assert "None of them can be cancelled" in text_of(dana.post(page))
    Failover.objects.filter(group=furniture.group).update(state="cancelled", finished_at=timezone.now())
    assert page not in dana.get(at("failover-group", furniture.group)).content.decode()
    assert dana.get(at("failover-group-cancel", uuid4())).status_code == 404
