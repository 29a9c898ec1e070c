"""Replication in the console: what its pages say, what its forms take and refuse, and what its buttons do."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.console import live
from broker.models import (
    Hypervisor,
    Machine,
    Network,
    RecoveryPoint,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
    RpoBreach,
    Standby,
    Storage,
    Vault,
)
from tests.broker.console.furniture import Furniture, machine, more_replication
from tests.broker.console.test_acts import HTMX, at, events_of, text_of
from tests.broker.portal.cast import Estate

FORM = {
    "name": "Servers", "rhythm": "interval", "interval": "15 min", "cron": "", "rpo": "1 h 30 min", "zone": "UTC",
    "keep_last": "3", "keep_hourly": "24", "keep_daily": "7", "keep_weekly": "0", "keep_monthly": "0",
    "verification": "digest", "limit": "", "window_from": "", "window_to": "",
}  # fmt: skip


def seen(answer: Any) -> str:
    """What a person reads of a page."""
    page = re.sub(r"(?s)<(script|head|aside).*?</\1>", " ", answer.content.decode())
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


# --- overview ---------------------------------------------------------------------------------------------------------


def test_a_bare_house_begins_with_a_vault_and_then_a_policy(house: Estate, dana: Client) -> None:
    page = dana.get(at("replication"))
    assert "First a vault, then a policy" in seen(page)
    assert at("vault-add") in page.content.decode()
    assert at("policy-add") not in page.content.decode()
    assert "There is no vault yet" in seen(dana.get(at("policy-add")))
    Vault.objects.create(name="Cellar", kind="folder", location={"path": "/srv/vault"}, status="up")
    page = dana.get(at("replication"))
    assert "Nothing is replicated yet" in seen(page)
    assert at("policy-add") in page.content.decode()


def test_the_overview_tells_what_is_wrong_what_is_kept_and_what_runs(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    page = seen(dana.get(at("replication")))
    assert "The vault Bucket cannot be used. Cannot reach s3.example.net" in page
    assert "The RPO of 1 machine is broken. ledger-01 : its newest point was taken 3 h ago" in page
    assert "Accounting promises one of at most 2 h. The vault Cellar has no room." in page
    assert "1 recovery point is damaged." in page
    assert "RPO broken for 1 of 2" in page
    assert "into Cellar, every hour" in page
    assert "at 02:30 from Monday to Friday (UTC)" in page
    assert "Copies vda of ledger-01 38 %" in page
    assert re.search(r"31 GiB of 80 GiB · 6\d(\.\d)? MiB/s · about 4 min", page)
    assert "office-001 keeps the RPO of Accounting again." in page


def test_all_is_calm_where_nothing_is_wrong(house: Estate, furniture: Furniture, dana: Client) -> None:
    ReplicationSource.objects.update(breaks_at=timezone.now() + timedelta(hours=1))
    Vault.objects.update(status="up")
    RecoveryPoint.objects.update(state="usable")
    for name in ("replication", "dashboard"):
        page = seen(dana.get(at(name)))
        assert "cannot be used" not in page
        assert "is broken" not in page
        assert "damaged" not in page


def test_the_dashboard_tells_of_broken_promises_and_lost_vaults(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    page = seen(dana.get(at("dashboard")))
    assert "The vault Bucket cannot be used." in page
    assert "The RPO of 1 machine is broken." in page


def test_pages_hear_of_replication(house: Estate, furniture: Furniture, dana: Client) -> None:
    assert "replication" in live.NOUNS
    for name in ("replication", "runs", "points", "vaults"):
        assert "sse:replication" in dana.get(at(name)).content.decode()


# --- policies ---------------------------------------------------------------------------------------------------------


def test_a_policy_promises_in_one_sentence_and_shows_its_machines(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    page = seen(dana.get(at("policy", furniture.policy.pk)))
    assert (
        "Copies its machines into Cellar every hour. The newest copy of each is promised to be at most 2 h old. "
        "Kept: the last 3, one an hour for 24 hours, and one a day for 7 days." in page
    )
    assert "Reads at most 40 MB/s between 08:00 and 18:00 (Europe/Berlin)." in page
    assert "ledger-01 kvm-01 · only vda RPO broken since 1 h ago broken for 110 min of the last 30 days" in page
    assert "the last good one took 7 min: smallest RPO 14 min" in page
    assert "Read whole: It is the first point." in page
    assert "ledger-01 for 1 h, and still" in page
    assert "ledger-01 for 50 min The last run is not finished yet." in page


def test_a_promise_that_cannot_be_kept_is_doubted_before_it_breaks(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    ReplicationPolicy.objects.filter(pk=furniture.policy.pk).update(rpo_s=1800)
    said = "It runs every hour and promises points no older than 30 min: that cannot be kept."
    assert said in seen(dana.get(at("policy", furniture.policy.pk)))
    assert "Cannot be kept as it is set" in seen(dana.get(at("replication")))


def test_a_policy_page_takes_the_same_statements_for_more_machines(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    def statements() -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert dana.get(at("policy", furniture.policy.pk)).status_code == 200
        return len(queries)

    before = statements()
    for number in range(20):
        more_replication(house.hypervisor, furniture, number)
    assert statements() == before


def test_a_new_policy_leads_to_the_choice_of_its_machines(house: Estate, furniture: Furniture, dana: Client) -> None:
    answer = dana.post(at("policy-add"), FORM | {"vault": furniture.vault.pk, "limit": "2.5"}, follow=True)
    made = ReplicationPolicy.objects.get(name="Servers")
    assert answer.redirect_chain == [(at("policy-choose", made.pk), 302)]
    assert (made.interval_s, made.cron, made.rpo_s, made.keep_hourly) == (900, "", 5400, 24)
    assert (made.bytes_a_second, made.window_from, made.vault) == (2_500_000, None, furniture.vault)
    assert "Servers stands. Now choose its machines." in seen(answer)
    assert "None yet: nothing is replicated until you choose." in seen(dana.get(at("policy", made.pk)))


def test_a_policy_may_run_at_set_times(house: Estate, furniture: Furniture, dana: Client) -> None:
    times = {"rhythm": "cron", "cron": "30 2 * * 1-5", "zone": "Europe/Berlin", "rpo": "3 days"}
    dana.post(at("policy-add"), FORM | times | {"vault": furniture.vault.pk})
    made = ReplicationPolicy.objects.get(name="Servers")
    assert (made.interval_s, made.cron, made.zone, made.rpo_s) == (None, "30 2 * * 1-5", "Europe/Berlin", 259_200)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "This field is required."),
        ({"name": "Accounting"}, "There is already a policy of that name."),
        ({"interval": "often"}, "Write a number and a unit, such as 15 min"),
        ({"interval": "30 s"}, "A whole number from 60"),
        ({"interval": ""}, "Give an interval or a cron expression"),
        ({"rhythm": "cron", "cron": ""}, "Give an interval or a cron expression"),
        ({"rhythm": "cron", "cron": "at night"}, "Write five fields"),
        ({"rpo": "2"}, "Write a number and a unit"),
        ({"rpo": ""}, "This field is required."),
        ({"keep_last": "0"}, "greater than or equal to 1"),
        ({"zone": "Mars/Olympus"}, "Select a valid choice."),
        ({"limit": "0.01"}, "greater than or equal to 0.1"),
        ({"limit": "1e9"}, "A whole number from"),
        ({"window_from": "08:00"}, "Give both ends of the window"),
        ({"window_from": "25:00"}, "A time of day such as 08:00."),
        ({"vault": str(uuid4())}, "Select a valid choice."),
    ],
)
def test_what_is_wrong_is_said_and_what_was_typed_stays(
    house: Estate, furniture: Furniture, dana: Client, fields: dict[str, str], words: str
) -> None:
    answer = dana.post(at("policy-add"), FORM | {"vault": furniture.vault.pk} | fields)
    assert answer.status_code == 422
    assert words in text_of(answer)
    assert "1 h 30 min" in answer.content.decode() or "rpo" in fields
    assert ReplicationPolicy.objects.count() == 2


def test_a_policy_is_changed_and_its_form_shows_what_stands(house: Estate, furniture: Furniture, dana: Client) -> None:
    address = at("policy-edit", furniture.policy.pk)
    page = text_of(dana.get(address))
    assert 'value="1 h"' in page
    assert 'value="2 h"' in page
    assert 'value="40"' in page
    assert 'value="08:00"' in page
    answer = dana.post(address, FORM | {"vault": furniture.vault.pk, "rpo": "4 h"}, follow=True)
    assert answer.redirect_chain == [(at("policy", furniture.policy.pk), 302)]
    furniture.policy.refresh_from_db()
    assert (furniture.policy.name, furniture.policy.rpo_s, furniture.policy.bytes_a_second) == ("Servers", 14_400, None)


def test_the_form_says_where_machines_stand_by(house: Estate, furniture: Furniture, dana: Client) -> None:
    address = at("policy-edit", furniture.policy.pk)
    page = text_of(dana.get(address))
    storage = furniture.elsewhere.storages.get()
    assert f'<option value="{storage.pk}" selected>elsewhere-01: fast</option>' in page
    wanted = FORM | {"vault": furniture.vault.pk, "keeps_standby": "on", "standby_every": "12 h"}
    answer = dana.post(address, wanted | {"target": ""})
    assert answer.status_code == 422
    assert "Choose where the machines stand by." in seen(answer)
    dana.post(address, wanted | {"target": storage.pk, "verification": "boot"})
    policy = furniture.policy
    policy.refresh_from_db()
    assert (policy.target, policy.target_storage) == (furniture.elsewhere, "fast")
    assert (policy.keeps_standby, policy.standby_every_s, policy.verification) == (True, 43_200, "boot")


def test_a_policy_shows_what_stands_by_and_what_gave_no_sign_of_life(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    page = seen(dana.get(at("policy", furniture.policy.pk)))
    assert "A standby of each waits on elsewhere-01." in page
    assert "Once a day the newest copy of each is started on elsewhere-01." in page
    assert "Its standby ledger-01-standby-2f61c0 is used and left alone Make a new one" in page
    assert "Its copy was started 5 h ago : No sign of life within 900 s; it is on." in page
    assert "Stands by as it was 3 h ago" in page
    overview = seen(dana.get(at("replication")))
    assert "The copy of 1 machine was started and gave no sign of life. ledger-01" in overview


def test_a_new_standby_is_made_beside_one_that_is_used(house: Estate, furniture: Furniture, dana: Client) -> None:
    used = Standby.objects.get(is_used=True)
    waiting = Standby.objects.get(is_used=False)
    answer = dana.post(at("standby-anew", waiting.pk), headers=HTMX)
    assert (answer.status_code, "waits as it should" in events_of(answer)["toast"]["text"]) == (409, True)
    assert events_of(dana.post(at("standby-anew", used.pk), headers=HTMX))["toast"]["text"] == "A new one is made."
    assert ReplicationRun.objects.filter(kind="standby", source=furniture.source, state="queued").exists()


def test_enter_in_the_field_of_a_tag_puts_it_on_and_in_that_of_disks_adds_the_rows(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    """Browsers press a form's first button."""
    policy = furniture.policy
    address = at("policy-choose", policy.pk)
    server = machine(house.hypervisor, "server-1", platform_id="server-1")
    page = dana.get(address).content.decode()
    form = page[page.index('<form class="stack"') :]
    first = form[form.index("<button") :]
    assert first.startswith('<button type="submit" name="enter" value="1" hidden>')
    sent = {"choice": [server.pk], "enter": "1", "disks": ""}
    assert "1 machine was tagged tier 1." in seen(dana.post(address, sent | {"tag": "tier 1"}, follow=True))
    assert not policy.choices.filter(platform_id="server-1").exists()
    assert "1 was added to" in seen(dana.post(address, sent | {"tag": " "}, follow=True))
    assert policy.choices.filter(platform_id="server-1").exists()


def test_machines_are_tagged_and_a_tag_is_chosen(house: Estate, furniture: Furniture, dana: Client) -> None:
    policy = furniture.policy
    address = at("policy-choose", policy.pk)
    assert "No machine bears a tag yet" in seen(dana.get(address, {"kind": "tag"}))
    servers = [machine(house.hypervisor, name, platform_id=name) for name in ("server-1", "server-2")]
    sent = {"choice": [one.pk for one in servers], "tag": "tier 1"}
    answer = dana.post(address, sent | {"put_tag": "on"}, follow=True)
    assert "2 machines were tagged tier 1." in seen(answer)
    assert "server-1 kvm-01 tier 1" in seen(answer)
    assert "tier 1 2" in seen(dana.get(address, {"kind": "tag"}))
    dana.post(f"{address}?kind=tag", {"choice": ["tier 1"]})
    assert policy.choices.filter(kind="tag", tag="tier 1").exists()
    assert "tier 1 Chosen" in seen(dana.get(address, {"kind": "tag"}))
    assert "tier 1 Tag" in seen(dana.get(at("policy", policy.pk)))
    answer = dana.post(address, sent | {"choice": [servers[0].pk], "put_tag": "off"}, follow=True)
    assert "The tag tier 1 was taken off." in seen(answer)
    assert policy.sources.filter(is_chosen=True, platform_id="server-2").exists()
    assert not policy.sources.filter(is_chosen=True, platform_id="server-1").exists()


def test_a_policy_is_run_paused_and_resumed(house: Estate, furniture: Furniture, dana: Client) -> None:
    policy = furniture.policy
    answer = dana.post(at("policy-run", policy.pk), headers=HTMX)
    assert events_of(answer)["toast"]["text"] == "1 machine is queued.", "the other one is at work"
    answer = dana.post(at("policy-run", policy.pk), headers=HTMX)
    assert (answer.status_code, events_of(answer)["toast"]["text"]) == (
        409,
        "Each of its machines is being replicated already.",
    )
    answer = dana.post(at("policy-enable", policy.pk), {"on": "0"}, headers=HTMX)
    assert "is paused: nothing runs by itself, and nothing is promised." in events_of(answer)["toast"]["text"]
    assert "Paused: nothing runs by itself" in seen(dana.get(at("policy", policy.pk)))
    dana.post(at("policy-enable", policy.pk), {"on": "1"}, headers=HTMX)
    policy.refresh_from_db()
    assert policy.is_enabled


def test_a_policy_is_deleted_only_by_its_name_and_not_while_it_runs(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    address = at("policy-delete", furniture.policy.pk)
    assert "Its recovery points stay in their vault" in text_of(dana.get(address))
    assert dana.post(address).status_code == 422
    answer = dana.post(address, {"typed_name": "Accounting"})
    assert "ledger-01 is being replicated." in text_of(answer)
    ReplicationRun.objects.update(state="done")
    dana.post(address, {"typed_name": "Accounting"})
    assert not ReplicationPolicy.objects.filter(pk=furniture.policy.pk).exists()
    assert RecoveryPoint.objects.filter(pk=furniture.point.pk).exists()


# --- which machines ---------------------------------------------------------------------------------------------------


def test_machines_are_found_by_name_and_those_chosen_are_marked(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    address = at("policy-choose", furniture.policy.pk)
    page = seen(dana.get(address))
    assert "ledger-01 Chosen" in page
    assert "file-server" in page
    assert house.desktop.name not in page, "a desktop is chosen as a desktop"
    found = seen(dana.get(address, {"q": "FILE"}))
    assert "file-server" in found
    assert "ledger-01" not in found
    assert "Nothing of that name" in seen(dana.get(address, {"q": "nowhere"}))


def test_the_search_gets_the_list_alone(house: Estate, furniture: Furniture, dana: Client) -> None:
    asking = {"HX-Request": "true", "HX-Target": "live"}
    part = dana.get(at("policy-choose", furniture.policy.pk), {"q": "file"}, headers=asking).content.decode()
    assert "file-server" in part
    assert "<html" not in part
    assert 'type="search"' not in part


def test_hypervisors_that_cannot_be_read_are_named_and_not_offered(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    other = Hypervisor.objects.create(name="tape-robot", kind="tape")
    machine(other, "unreadable-1")
    page = seen(dana.get(at("policy-choose", furniture.policy.pk)))
    assert "Not offered: tape-robot." in page
    assert "unreadable-1" not in page
    Hypervisor.objects.exclude(pk=other.pk).update(kind="tape")
    assert "No hypervisor from which can be replicated" in seen(dana.get(at("policy-choose", furniture.policy.pk)))


def test_chosen_rows_are_added_together_with_their_disks(house: Estate, furniture: Furniture, dana: Client) -> None:
    others = [machine(house.hypervisor, f"server-{number}") for number in range(3)]
    address = at("policy-choose", furniture.policy.pk) + "?kind=machine&q=server"
    answer = dana.post(address, {"choice": [row.pk for row in others], "disks": "Hard disk 1, vdb"}, follow=True)
    assert "3 were added to Accounting." in seen(answer)
    assert answer.redirect_chain == [(address, 302)], "there may be more to choose"
    made = furniture.policy.sources.filter(name__startswith="server-")
    assert {tuple(source.disks) for source in made} == {("Hard disk 1", "vdb")}


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({}, "Choose at least one first."),
        ({"choice": "x"}, "Nothing was chosen. There is no such thing."),
        ({"choice": str(uuid4())}, "There is no such machine."),
    ],
)
def test_a_choice_of_nothing_is_refused_in_words(
    house: Estate, furniture: Furniture, dana: Client, sent: dict[str, str], words: str
) -> None:
    answer = dana.post(at("policy-choose", furniture.policy.pk), sent)
    assert answer.status_code == 422
    assert words in seen(answer)


def test_a_pool_a_template_or_a_desktop_is_chosen_too(house: Estate, furniture: Furniture, dana: Client) -> None:
    own = house.open_pool("Own", kind="dedicated")
    desktop = house.give(house.bob, own, name="own-001")
    address = at("policy-choose", furniture.policy.pk)
    assert "own-001 kvm-01 bob" in seen(dana.get(address, {"kind": "desktop"}))
    assert "Own 1" in seen(dana.get(address, {"kind": "pool"}))
    assert "Debian 12" in seen(dana.get(address, {"kind": "template"}))
    for kind, pk in (("desktop", desktop.pk), ("pool", own.pk), ("template", house.copy.version.template_id)):
        dana.post(f"{address}?kind={kind}", {"choice": pk})
    kinds = furniture.policy.choices.values_list("kind", flat=True)
    assert set(kinds) == {"machine", "desktop", "pool", "template"}


def test_what_was_chosen_is_taken_out_after_a_question(house: Estate, furniture: Furniture, dana: Client) -> None:
    address = at("choice-remove", furniture.choice.pk)
    assert "Take ledger-01 out of Accounting?" in text_of(dana.get(address))
    dana.post(address)
    furniture.source.refresh_from_db()
    assert not furniture.source.is_chosen
    assert "Not replicated any more" in seen(dana.get(at("policy", furniture.policy.pk)))


# --- runs -------------------------------------------------------------------------------------------------------------


def test_runs_are_narrowed_by_state_kind_policy_and_machine(house: Estate, furniture: Furniture, dana: Client) -> None:
    def rows(**query: str) -> int:
        return dana.get(at("runs"), query).content.decode().count('data-label="When"')

    assert rows() == 7
    assert rows(state="unfinished") == 4
    assert rows(state="failed") == 1
    assert rows(kind="verify") == 1
    assert rows(policy=str(furniture.policy.pk)) == 4
    assert rows(q="TEST") == 1
    assert "No run fits" in seen(dana.get(at("runs"), {"q": "nowhere"}))


def test_a_failed_run_says_why_and_what_becomes_of_it(house: Estate, furniture: Furniture, dana: Client) -> None:
    failed = ReplicationRun.objects.get(state="failed")
    page = seen(dana.get(at("run", failed.pk)))
    assert "The vault Cellar has no room. Make room or keep fewer points." in page
    assert "Nothing half was kept." in page
    retried = ReplicationRun.objects.get(state="queued")
    page = seen(dana.get(at("run", retried.pk)))
    assert "kvm-01 is busy. It is tried again in" in page
    assert "The disks hang on SATA" in page


def test_a_run_is_cancelled_when_its_mover_hears_of_it(house: Estate, furniture: Furniture, dana: Client) -> None:
    address = at("run", furniture.run.pk)
    assert at("run-cancel", furniture.run.pk) in dana.get(address).content.decode()
    answer = dana.post(at("run-cancel", furniture.run.pk), headers=HTMX)
    assert events_of(answer)["toast"]["text"] == "It ends as soon as its mover hears of it."
    page = dana.get(address)
    assert "Being cancelled" in seen(page)
    assert at("run-cancel", furniture.run.pk) not in page.content.decode()
    failed = ReplicationRun.objects.get(state="failed")
    answer = dana.post(at("run-cancel", failed.pk), headers=HTMX)
    assert (answer.status_code, events_of(answer)["toast"]["text"]) == (409, "This run has ended: failed.")


# --- recovery points --------------------------------------------------------------------------------------------------


def test_recovery_points_tell_when_how_consistent_and_how_large(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    page = seen(dana.get(at("points")))
    assert "ledger-01 kvm-01 · Accounting Verified File systems frozen 80 GiB 3 GiB 2 h ago" in page
    assert "old-server esx-cluster Damaged" in page
    assert "As after a power cut" in page
    mine = seen(dana.get(at("points"), {"source": str(furniture.source.pk)}))
    assert "Recovery points of ledger-01" in mine
    assert "old-server" not in mine
    assert "No recovery point fits" in seen(dana.get(at("points"), {"state": "deleting"}))


def test_a_recovery_point_is_read_back_and_deleted_after_a_question(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    point = furniture.point
    answer = dana.post(at("point-verify", point.pk), headers=HTMX)
    assert events_of(answer)["toast"]["text"] == "It is being read back."
    answer = dana.post(at("point-delete", point.pk), headers=HTMX)
    assert answer.status_code == 422
    assert "It is being read (" in text_of(answer)
    ReplicationRun.objects.exclude(pk=furniture.run.pk).update(state="done")
    assert "Delete this recovery point of ledger-01?" in text_of(dana.get(at("point-delete", point.pk)))
    dana.post(at("point-delete", point.pk))
    point.refresh_from_db()
    assert point.state == "deleting"
    page = dana.get(at("point", point.pk))
    assert "Being deleted" in seen(page)
    assert at("point-delete", point.pk) not in page.content.decode()


def test_a_damaged_point_says_so_and_is_not_brought_up(house: Estate, furniture: Furniture, dana: Client) -> None:
    landing_on(house)
    damaged = RecoveryPoint.objects.get(state="broken")
    page = dana.get(at("point", damaged.pk))
    assert "It cannot be brought up: something of it is damaged in the vault." in seen(page)
    assert at("point-bring-up", damaged.pk) not in page.content.decode()


def landing_on(house: Estate, name: str = "elsewhere") -> Hypervisor:
    """A hypervisor that can be landed on, with a storage and two networks."""
    now = timezone.now()
    made = Hypervisor.objects.create(name=name, kind="instant", status="up", status_since=now)
    for storage, free_mib in (("small", 1024), ("large", 900 * 1024)):
        Storage.objects.create(
            hypervisor=made, platform_id=storage, name=storage, capacity_mib=free_mib, free_mib=free_mib, seen_at=now
        )
    for network in ("default", "isolated"):
        Network.objects.create(hypervisor=made, platform_id=network, name=network, seen_at=now)
    return made


def test_where_nothing_can_be_made_that_is_said(house: Estate, furniture: Furniture, dana: Client) -> None:
    Hypervisor.objects.update(kind="tape")
    before = ReplicationRun.objects.filter(kind="materialise").count()
    assert "No hypervisor can take it" in seen(dana.get(at("point-bring-up", furniture.point.pk)))
    page = dana.get(at("point", furniture.point.pk))
    assert "No registered hypervisor can make machines from recovery points yet" in seen(page)
    assert at("point-bring-up", furniture.point.pk) not in page.content.decode()
    assert dana.post(at("point-bring-up", furniture.point.pk), {"name": "x"}).status_code == 200
    assert ReplicationRun.objects.filter(kind="materialise").count() == before, "nothing was ordered"


def test_a_point_is_brought_up_elsewhere(house: Estate, furniture: Furniture, dana: Client) -> None:
    there = landing_on(house)
    address = at("point-bring-up", furniture.point.pk)
    page = dana.get(address, {"hypervisor": str(there.pk)})
    assert re.search(r'name="name" value="ledger-01-\d{4}-\d{4}"', page.content.decode())
    assert "large, 900 GiB free small, 1 GiB free: perhaps too small" in seen(page)
    wish = {
        "hypervisor": there.pk, "name": "ledger-test", "storage": there.storages.get(name="large").pk,
        "nic_1": there.networks.get(name="isolated").pk,
    }  # fmt: skip
    answer = dana.post(address, wish, follow=True)
    run = ReplicationRun.objects.get(subject="ledger-test")
    assert answer.redirect_chain == [(at("run", run.pk), 302)]
    assert (run.hypervisor, run.point) == (there, furniture.point)
    assert run.wish == {"name": "ledger-test", "storage": "large", "networks": ["isolated"]}
    dana.post(address, wish | {"name": "unplugged", "nic_1": ""})
    assert ReplicationRun.objects.get(subject="unplugged").wish["networks"] == [""]


def test_a_machine_that_still_runs_is_not_met_by_its_copy(house: Estate, furniture: Furniture, dana: Client) -> None:
    there = landing_on(house)
    address = at("point-bring-up", furniture.point.pk) + f"?hypervisor={there.pk}"
    assert "ledger-01 still runs. Cards are left unconnected" in seen(dana.get(address))
    assert '<option value="" selected>Not connected</option>' in text_of(dana.get(address))
    Machine.objects.filter(name="ledger-01").update(power="off")
    page = dana.get(address)
    assert "still runs" not in seen(page)
    assert f'<option value="{there.networks.get(name="default").pk}" selected>default</option>' in text_of(page)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "This field is required."),
        ({"storage": str(uuid4())}, "Select a valid choice."),
        ({"nic_1": str(uuid4())}, "Select a valid choice."),
        ({"name": "a\u200bb"}, "Only printable characters"),
    ],
)
def test_what_is_wrong_about_a_machine_is_said_at_its_field(
    house: Estate, furniture: Furniture, dana: Client, fields: dict[str, str], words: str
) -> None:
    there = landing_on(house)
    wish = {"hypervisor": there.pk, "name": "x", "storage": there.storages.get(name="large").pk, "nic_1": ""}
    answer = dana.post(at("point-bring-up", furniture.point.pk), wish | fields)
    assert answer.status_code == 422
    assert words in seen(answer)


# --- vaults -----------------------------------------------------------------------------------------------------------


def test_a_vault_is_made_with_a_key_that_is_shown_before_it_is_used(
    house: Estate, dana: Client, tmp_path: Path
) -> None:
    typed = {"name": "Safe", "kind": "folder", "path": str(tmp_path)}
    first = dana.post(at("vault-add"), typed | {"make_key": "1"})
    assert first.status_code == 200
    assert "Keep this key: without it everything in the vault is lost." in seen(first)
    assert str(tmp_path) in first.content.decode(), "what was typed stays"
    assert not Vault.objects.exists()
    key = re.findall(r'name="key" value="([^"]+)"', first.content.decode())[0]
    again = dana.post(at("vault-add"), typed | {"key": key, "new_key": "1"})
    assert again.status_code == 422
    assert "Copy the key first: without it everything in the vault is lost." in seen(again)
    assert "Keep this key" in seen(again), "it was shown nowhere else"
    assert seen(again).count(key) == 1
    assert not Vault.objects.exists()
    done = dana.post(at("vault-add"), typed | {"key": key, "new_key": "1", "is_kept": "on"}, follow=True)
    assert "Safe can be used." in seen(done)
    made = Vault.objects.get()
    assert (made.is_encrypted, made.location) == (True, {"path": str(tmp_path)})
    for name in ("vaults", "vault-edit"):
        page = dana.get(at(name, made.pk) if name == "vault-edit" else at(name)).content.decode()
        assert key not in page


def test_a_vault_needs_no_key(house: Estate, dana: Client, tmp_path: Path) -> None:
    dana.post(at("vault-add"), {"name": "Open", "kind": "folder", "path": str(tmp_path), "key": ""})
    assert not Vault.objects.get().is_encrypted
    assert "Folder or mounted share" in seen(dana.get(at("vault-add")))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "This field is required."),
        ({"path": ""}, "Give the whole path of a folder"),
        ({"path": "/nowhere/at/all"}, "is not there"),
        ({"key": "short", "is_kept": "on"}, "A key is 32 bytes in Base64"),
        ({"kind": "s3"}, "Give the bucket"),
        ({"kind": "s3", "bucket": "b", "endpoint": "ftp://x"}, "Give an address such as https://"),
        ({"kind": "tape"}, "Select a valid choice."),
    ],
)
def test_what_is_wrong_about_a_vault_is_said_at_its_field(
    house: Estate, dana: Client, tmp_path: Path, fields: dict[str, str], words: str
) -> None:
    wish = {"name": "Safe", "kind": "folder", "path": str(tmp_path)}
    answer = dana.post(at("vault-add"), wish | fields)
    assert answer.status_code == 422
    assert words in seen(answer)
    assert "field__error" in answer.content.decode()
    assert not Vault.objects.exists()


def test_a_vault_is_opened_again_when_it_is_changed(house: Estate, dana: Client, tmp_path: Path) -> None:
    dana.post(at("vault-add"), {"name": "Open", "kind": "folder", "path": str(tmp_path)})
    vault = Vault.objects.get()
    Vault.objects.update(status="down", status_reason="It was away.")
    page = dana.get(at("vault-edit", vault.pk))
    assert "It was away." in seen(page)
    wish = {"name": "Attic", "path": str(tmp_path)}
    assert "is not there" in seen(dana.post(at("vault-edit", vault.pk), wish | {"path": "/nowhere/at/all"}))
    answer = dana.post(at("vault-edit", vault.pk), wish, follow=True)
    assert "The vault was opened and can be used." in seen(answer)
    vault.refresh_from_db()
    assert (vault.name, vault.status, vault.status_reason) == ("Attic", "up", "")


def test_a_vault_in_use_is_not_removed_and_says_by_what(house: Estate, furniture: Furniture, dana: Client) -> None:
    address = at("vault-remove", furniture.vault.pk)
    question = text_of(dana.get(address))
    assert "Its recovery points (3) are forgotten here. What lies in it stays where it is." in question
    answer = dana.post(address, {"typed_name": "Cellar"})
    assert answer.status_code == 422
    assert "Cellar is the vault of Accounting, Nights." in seen(answer)
    bucket = Vault.objects.get(name="Bucket")
    dana.post(at("vault-remove", bucket.pk), {"typed_name": "Bucket"})
    assert not Vault.objects.filter(pk=bucket.pk).exists()


# --- elsewhere --------------------------------------------------------------------------------------------------------


def test_a_desktop_tells_by_what_it_is_replicated(house: Estate, furniture: Furniture, dana: Client) -> None:
    page = dana.get(at("desktop", house.desktop.pk))
    assert "Replicated by Accounting , newest point 25 min ago" in seen(page)
    assert at("policy", furniture.policy.pk) in page.content.decode()
    furniture.policy.choices.all().delete()
    ReplicationSource.objects.update(is_chosen=False)
    assert "Replicated" not in seen(dana.get(at("desktop", house.desktop.pk)))


def test_policies_are_found_by_the_search(house: Estate, furniture: Furniture, dana: Client) -> None:
    answer = dana.get(at("search"), {"q": "account"}, headers=HTMX)
    assert at("policy", furniture.policy.pk) in answer.content.decode()


def test_an_unknown_id_is_not_found(house: Estate, dana: Client) -> None:
    for name in (
        "policy", "policy-edit", "policy-choose", "policy-delete", "choice-remove", "run", "point", "point-bring-up",
        "point-delete", "vault-edit", "vault-remove",
    ):  # fmt: skip
        assert dana.get(at(name, uuid4())).status_code == 404, name
    for name in ("policy-run", "policy-enable", "run-cancel", "point-verify"):
        assert dana.post(at(name, uuid4()), headers=HTMX).status_code == 404, name


def test_a_user_can_do_nothing_by_posting(
    house: Estate, furniture: Furniture, as_: Callable[[User], Client], tmp_path: Path
) -> None:
    alice = as_(house.alice)
    ids: dict[str, UUID] = {
        "policy-run": furniture.policy.pk, "policy-enable": furniture.policy.pk, "policy-edit": furniture.policy.pk,
        "policy-delete": furniture.policy.pk, "policy-choose": furniture.policy.pk, "run-cancel": furniture.run.pk,
        "choice-remove": furniture.choice.pk, "point-verify": furniture.point.pk, "point-delete": furniture.point.pk,
        "point-bring-up": furniture.point.pk, "vault-edit": furniture.vault.pk, "vault-remove": furniture.vault.pk,
    }  # fmt: skip
    before = (ReplicationRun.objects.count(), RpoBreach.objects.count(), Vault.objects.count())
    assert {alice.post(at(name, pk)).status_code for name, pk in ids.items()} == {403}
    for name in ("policy-add", "vault-add"):
        assert alice.post(at(name), {"make_key": "1", "name": "x", "path": str(tmp_path)}).status_code == 403
    assert (ReplicationRun.objects.count(), RpoBreach.objects.count(), Vault.objects.count()) == before
