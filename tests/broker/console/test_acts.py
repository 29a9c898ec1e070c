"""Buttons and forms: what they do, what they ask first, and how they say no."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from broker.console.pool_forms import initial_of
from broker.models import (
    ApiToken,
    AuditEntry,
    Desktop,
    Entitlement,
    GuestCertificate,
    Hypervisor,
    LogicalNetwork,
    Machine,
    Operation,
    Pool,
    PoolMember,
    Template,
    TemplateCopy,
)
from tests.broker.console.furniture import Furniture
from tests.broker.portal.cast import PASSWORD, Estate

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse as Answer

HTMX = {"HX-Request": "true"}


def events_of(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.headers["HX-Trigger"])
    return found


def text_of(answer: Answer) -> str:
    return " ".join(answer.content.decode().split())


def at(name: str, *arguments: object) -> str:
    return reverse(f"console:{name}", args=arguments)


# --- power -----------------------------------------------------------------------------------------------------------


def test_bulk_power_first_says_how_many_are_meant_and_in_use(house: Estate, furniture: Furniture, dana: Client) -> None:
    free = Desktop.objects.get(name="office-002")
    chosen = {"desktop": [str(house.desktop.pk), str(free.pk)], "action": "shutdown", "asked": "1"}
    question = dana.post(at("desktops-change"), chosen, headers=HTMX)
    assert "Shut down 2 desktops?" in text_of(question)
    assert "1 of them is in use right now." in text_of(question)
    assert not Operation.objects.filter(kind="power", parameters__action="shutdown").exists()
    chosen.pop("asked")
    answer = dana.post(at("desktops-change"), chosen, headers=HTMX)
    assert answer.status_code == 204
    assert events_of(answer)["toast"] == {"text": "Ordered for 2 desktops.", "tone": "good"}
    assert {"changed", "close-dialog"} <= events_of(answer).keys()
    ordered = Operation.objects.filter(kind="power", parameters__action="shutdown", requested_by=house.dana)
    assert {operation.desktop_id for operation in ordered} == {house.desktop.pk, free.pk}


def test_bulk_power_orders_what_it_can_and_says_what_it_could_not(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    chosen = {"desktop": [str(house.desktop.pk), str(furniture.missing.pk)], "action": "off"}
    said = events_of(dana.post(at("desktops-change"), chosen, headers=HTMX))["toast"]["text"]
    assert said.startswith("Ordered for 1 desktop. Not for 1: office-009 is missing")


def test_bulk_power_that_nothing_fits_is_refused_in_the_dialog(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    answer = dana.post(at("desktops-change"), {"desktop": [str(furniture.missing.pk)], "action": "on"}, headers=HTMX)
    assert answer.status_code == 422
    assert "Nothing was ordered. office-009 is missing" in text_of(answer)


@pytest.mark.parametrize("sent", [{}, {"action": "off"}, {"desktop": "x", "action": "off"}, {"action": "explode"}])
def test_bulk_power_without_desktops_or_action_is_refused(house: Estate, dana: Client, sent: dict[str, str]) -> None:
    answer = dana.post(at("desktops-change"), sent)
    assert answer.status_code == 422
    assert "Choose desktops and an action first." in text_of(answer)


def test_power_off_of_one_asks_first_and_warns(house: Estate, furniture: Furniture, dana: Client) -> None:
    address = at("desktop-power", house.desktop.pk) + "?action=off"
    question = text_of(dana.get(address))
    assert "Power is cut: unsaved work is lost." in question
    assert "Somebody looks at its screen right now." in question
    dana.post(address)
    assert Operation.objects.filter(desktop=house.desktop, state="queued", parameters__action="off").count() == 1


def test_without_javascript_an_act_leads_back_with_a_message(house: Estate, dana: Client) -> None:
    answer = dana.post(at("desktop-maintenance", house.desktop.pk), {"on": "1"}, follow=True)
    assert answer.redirect_chain == [(at("desktop", house.desktop.pk), 302)]
    assert "office-001 is in maintenance: it is not given out." in text_of(answer)
    house.desktop.refresh_from_db()
    assert house.desktop.is_in_maintenance


def test_a_local_account_is_asked_for_by_name_alone_and_refused_in_words(house: Estate, dana: Client) -> None:
    edit = dana.get(at("pool-edit", house.pool.pk)).content.decode()
    conditions = dict(re.findall(r'data-when="guest_account=([a-z ]+)">.*?name="(\w+)"', edit, re.DOTALL))
    assert conditions == {"pool local": "guest_user", "pool": "guest_password"}
    form = {
        str(name): value for name, value in initial_of(house.pool).items() if value is not None and value is not False
    }
    wish = form | {"protocol": "rdp", "guest_account": "local", "guest_user": "desk"}
    refused = dana.post(at("pool-edit", house.pool.pk), wish)
    assert refused.status_code == 422
    assert "Nowhere that it builds can passwords be set in guests: not on kvm-01." in text_of(refused)
    Hypervisor.objects.update(takes=["SetGuestPassword"])
    assert dana.post(at("pool-edit", house.pool.pk), wish).status_code == 302
    page = text_of(dana.get(at("pool", house.pool.pk)))
    assert "port 3389, as desk, with a password for each assignment" in page


def test_a_guests_certificate_is_shown_and_forgotten(house: Estate, dana: Client) -> None:
    GuestCertificate.objects.create(
        desktop=house.desktop, epoch=2, machine_id="m", sha256="ab" * 32, refused_sha256="cd" * 32,
        seen_at=timezone.now(),
    )  # fmt: skip
    page = text_of(dana.get(at("desktop", house.desktop.pk)))
    assert "ab" * 32 in page
    assert "The guest has shown another one since, and was refused." in page
    answer = dana.post(at("desktop-forget-certificate", house.desktop.pk), follow=True)
    assert "The certificate was forgotten" in text_of(answer)
    assert not GuestCertificate.objects.exists()


def test_an_act_never_leads_to_another_site(house: Estate, dana: Client) -> None:
    headers = {"Referer": "https://evil.example/console/"}
    answer = dana.post(at("desktop-maintenance", house.desktop.pk), {"on": "1"}, headers=headers)
    assert answer["Location"] == at("desktop", house.desktop.pk)


@pytest.mark.parametrize("name", ["desktop-maintenance", "operation-retry", "operation-cancel", "pool-resume"])
def test_what_does_something_at_once_refuses_to_be_read(house: Estate, dana: Client, name: str) -> None:
    assert dana.get(at(name, house.desktop.pk)).status_code == 405


# --- desktops and operations -----------------------------------------------------------------------------------------


def test_a_desktop_is_taken_back_only_after_a_question(house: Estate, dana: Client) -> None:
    address = at("desktop-release", house.desktop.pk)
    assert "Take office-001 back from its user?" in text_of(dana.get(address))
    house.desktop.refresh_from_db()
    assert house.desktop.state == "assigned"
    dana.post(address)
    house.desktop.refresh_from_db()
    assert house.desktop.state == "recycling"


def test_an_assigned_desktop_is_not_deleted_and_the_dialog_says_why(house: Estate, dana: Client) -> None:
    answer = dana.post(at("desktop-retire", house.desktop.pk), headers=HTMX)
    assert answer.status_code == 422
    assert "office-001 is assigned. Reclaim it before you delete it." in text_of(answer)


def test_a_failed_desktop_is_recycled(house: Estate, furniture: Furniture, dana: Client) -> None:
    Operation.objects.filter(desktop=furniture.failed_desktop).update(state="failed")
    dana.post(at("desktop-recycle", furniture.failed_desktop.pk))
    furniture.failed_desktop.refresh_from_db()
    assert furniture.failed_desktop.state == "recycling"


def test_why_here_is_answered_candidate_by_candidate(house: Estate, furniture: Furniture, dana: Client) -> None:
    page = text_of(dana.get(at("desktop", house.desktop.pk)))
    assert "61 % free after it" in page
    assert "kvm-03 is down." in page


def test_a_queued_operation_is_cancelled_and_a_sent_one_is_too_late(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    assert dana.post(at("operation-cancel", furniture.queued.pk), headers=HTMX).status_code == 204
    late = dana.post(at("operation-cancel", furniture.running.pk), headers=HTMX)
    assert late.status_code == 409
    assert events_of(late)["toast"]["tone"] == "attention"
    assert "too late to cancel" in events_of(late)["toast"]["text"]


def test_a_failed_operation_shows_its_error_and_the_platforms_words_and_can_be_retried(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    page = text_of(dana.get(at("operation", furniture.failed.pk)))
    assert "office-008 did not restart: its guest did not react." in page
    assert "internal error: guest agent is not connected" in page
    answer = dana.post(at("operation-retry", furniture.failed.pk), headers=HTMX)
    assert answer.headers["HX-Redirect"] == at("operation", Operation.objects.get(retry_of=furniture.failed).pk)


def test_a_build_is_not_retried_by_hand_and_the_page_says_so(house: Estate, furniture: Furniture, dana: Client) -> None:
    Operation.objects.filter(pk=furniture.running.pk).update(state="failed", error="No room.")
    page = text_of(dana.get(at("operation", furniture.running.pk)))
    assert "Deskyard repeats this by itself while it is still needed." in page
    assert at("operation-retry", furniture.running.pk) not in page


# --- hypervisors -----------------------------------------------------------------------------------------------------


def _kvm(**values: str) -> dict[str, str]:
    sent = {"transport": "tls", "address": "kvm-02.example.net", "port": "0", "user": "deskyard", "acceleration": "kvm"}
    return {"name": "kvm-02"} | {f"setting_{name}": value for name, value in (sent | values).items()}


CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"


def test_the_form_of_a_hypervisor_is_made_from_what_its_connector_declares(house: Estate, dana: Client) -> None:
    page = dana.get(at("hypervisor-add", "kvm")).content.decode()
    assert "TLS with certificates and password (SASL)" in page
    assert '<input type="password" name="setting_password"' in page
    assert '<textarea name="setting_ca_certificate"' in page
    assert 'data-when="setting_transport=tls ssh tcp"' in page, "the address is asked of what is not this machine"
    assert dana.get(at("hypervisor-add", "hal9000")).status_code == 404


def test_connect_registers_and_the_next_page_says_that_it_is_connecting(house: Estate, dana: Client) -> None:
    sent = _kvm(ca_certificate=CERTIFICATE, password=" secret with spaces ")
    answer = dana.post(at("hypervisor-add", "kvm"), sent, follow=True)
    made = Hypervisor.objects.get(name="kvm-02")
    assert answer.redirect_chain == [(at("hypervisor", made.pk), 302)]
    assert "Connecting …" in text_of(answer)
    assert made.settings["address"] == "kvm-02.example.net"
    assert "secret with spaces" not in json.dumps(made.settings)
    page = dana.get(at("hypervisor-edit", made.pk)).content.decode()
    assert "secret with spaces" not in page, "what is secret is never shown again"
    assert "Leave empty to keep the present one." in page


def test_what_the_connector_misses_is_said_on_the_form_which_keeps_what_was_typed(house: Estate, dana: Client) -> None:
    answer = dana.post(at("hypervisor-add", "kvm"), _kvm(port="not a number"))
    assert answer.status_code == 422
    assert "Enter a whole number." in text_of(answer)
    assert 'value="kvm-02.example.net"' in answer.content.decode()
    taken = dana.post(at("hypervisor-add", "kvm"), _kvm(ca_certificate=CERTIFICATE) | {"name": "KVM-01"})
    assert taken.status_code == 422
    assert "There is already a hypervisor of that name." in text_of(taken)


def test_a_changed_hypervisor_keeps_the_secrets_left_empty(house: Estate, dana: Client) -> None:
    dana.post(at("hypervisor-add", "kvm"), _kvm(ca_certificate=CERTIFICATE, password="first"))
    made = Hypervisor.objects.get(name="kvm-02")
    dana.post(at("hypervisor-edit", made.pk), _kvm(ca_certificate=CERTIFICATE, address="elsewhere", password=""))
    changed = Hypervisor.objects.get(pk=made.pk)
    assert changed.settings["address"] == "elsewhere"
    entry = AuditEntry.objects.filter(action="hypervisor.change").latest("pk")
    assert list(entry.changes) == ["address"]


def test_a_refused_sign_in_is_said_in_words(house: Estate, furniture: Furniture, dana: Client) -> None:
    reason = "kvm-01 refused the account deskyard. Check user and password."
    Hypervisor.objects.filter(pk=house.hypervisor.pk).update(status="refused", status_reason=reason)
    page = text_of(dana.get(at("hypervisor", house.hypervisor.pk)))
    assert reason in page
    assert "Nothing more is sent until you change something or check again" in page


def test_absence_in_doubt_is_confirmed_by_an_administrator(house: Estate, furniture: Furniture, dana: Client) -> None:
    page = text_of(dana.get(at("hypervisor", furniture.doubtful.pk)))
    assert "2 machines vanished at once, and that is not believed." in page
    assert "lost-1" in page
    dana.post(at("hypervisor-absence", furniture.doubtful.pk))
    furniture.doubtful.refresh_from_db()
    assert furniture.doubtful.absence_confirmed_at is not None


def test_a_hypervisor_is_removed_only_by_typing_its_name(house: Estate, furniture: Furniture, dana: Client) -> None:
    address = at("hypervisor-remove", furniture.doubtful.pk)
    wrong = dana.post(address, {"typed_name": "esx"}, headers=HTMX)
    assert wrong.status_code == 422
    assert "That is not the name. Nothing was changed." in text_of(wrong)
    answer = dana.post(address, {"typed_name": "esx-cluster"}, headers=HTMX)
    assert answer.headers["HX-Redirect"] == at("hypervisors")
    assert not Hypervisor.objects.filter(pk=furniture.doubtful.pk).exists()


def test_a_hypervisor_in_use_stays_and_the_dialog_says_what_to_do_first(house: Estate, dana: Client) -> None:
    answer = dana.post(at("hypervisor-remove", house.hypervisor.pk), {"typed_name": "kvm-01"}, headers=HTMX)
    assert answer.status_code == 422
    assert "Remove it from its pools first." in text_of(answer)


def test_drain_recheck_and_limits(house: Estate, dana: Client) -> None:
    pk = house.hypervisor.pk
    dana.post(at("hypervisor-drain", pk))
    dana.post(at("hypervisor-recheck", pk))
    limits = {"build_budget": "4", "power_budget": "9", "memory_ratio": "1.5", "vcpu_ratio": "4"}
    dana.post(at("hypervisor-limits", pk), limits)
    changed = Hypervisor.objects.get(pk=pk)
    assert changed.is_draining
    assert (changed.build_budget, changed.memory_ratio) == (4, 1.5)
    assert dana.post(at("hypervisor-limits", pk), limits | {"build_budget": "0"}).status_code == 422


def test_a_host_is_drained_and_takes_desktops_again(house: Estate, furniture: Furniture, dana: Client) -> None:
    page = text_of(dana.get(at("host-drain", furniture.host.pk)))
    assert "Those in use stay." in page
    for expected in (True, False):
        dana.post(at("host-drain", furniture.host.pk))
        furniture.host.refresh_from_db()
        assert furniture.host.is_draining is expected


def test_inventory_says_what_each_machine_is_to_us(house: Estate, furniture: Furniture, dana: Client) -> None:
    page = text_of(dana.get(at("hypervisor-machines", house.hypervisor.pk)))
    for words in ("Another installation’s", "Not Deskyard’s", "Copy of", "Desktop", "Ours"):
        assert words in page


# --- templates -------------------------------------------------------------------------------------------------------


def test_a_template_is_created_with_a_version_and_linked_to_an_image(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    answer = dana.post(at("template-add"), {"name": "Windows 11", "os": "Windows"}, follow=True)
    template = Template.objects.get(name="Windows 11")
    version = template.versions.get()
    assert answer.redirect_chain == [(at("copy-link", version.pk), 302)]
    assert "golden-win11" in text_of(answer)
    assert "It has a snapshot." in text_of(answer), "why an image cannot serve"
    dana.post(at("copy-link", version.pk), {"machine": str(furniture.image.pk)})
    copy = TemplateCopy.objects.get(version=version)
    assert copy.platform_id == furniture.image.platform_id
    dana.post(at("copy-remove", copy.pk))
    assert not TemplateCopy.objects.filter(pk=copy.pk).exists()


def test_linking_nothing_or_what_is_linked_is_refused(house: Estate, furniture: Furniture, dana: Client) -> None:
    address = at("copy-link", house.copy.version_id)
    assert "Choose what to link." in text_of(dana.post(address))
    linked = Machine.objects.get(platform_id="golden")
    answer = dana.post(address, {"machine": str(linked.pk)})
    assert answer.status_code == 422
    assert "golden is already the copy of Debian 12 v1 on kvm-01." in text_of(answer)


def test_a_template_in_use_is_not_deleted(house: Estate, dana: Client) -> None:
    address = at("template-delete", house.copy.version.template_id)
    answer = dana.post(address, {"typed_name": "Debian 12"}, headers=HTMX)
    assert answer.status_code == 422
    assert "Remove that member first." in text_of(answer)


def test_a_template_is_renamed_and_gets_a_version(house: Estate, dana: Client) -> None:
    pk = house.copy.version.template_id
    dana.post(at("template-edit", pk), {"name": "Debian 12 office"})
    dana.post(at("version-add", pk), {"note": "Updates of June"})
    template = Template.objects.get(pk=pk)
    assert template.name == "Debian 12 office"
    assert template.versions.count() == 2


# --- pools -----------------------------------------------------------------------------------------------------------


def _pool(house: Estate, **changes: object) -> dict[str, object]:
    copy = str(house.copy.pk)
    return {
        "name": "Kiosk", "kind": "floating", "naming": "kiosk-##", "minimum": "0", "spare": "3", "maximum": "20",
        "preparation": "agent", "prepare_timeout_s": "900", "priority": "50", "delete_budget_per_hour": "30",
        "is_linked": "on", "copies": [copy], f"weight_{copy}": "70", "groups": [str(house.staff.pk)], "users": "alice",
        "resource_class": "normal",
    } | changes  # fmt: skip


def test_a_pool_is_reviewed_before_it_is_created(house: Estate, furniture: Furniture, dana: Client) -> None:
    review = dana.post(at("pool-add"), _pool(house, step="review"))
    assert not Pool.objects.filter(name="Kiosk").exists()
    text = text_of(review)
    for words in (
        "kiosk-01",
        "3 desktops are built as soon as",
        "kvm-01.example.net on kvm-01",
        "Office staff",
        "alice",
    ):
        assert words in text, words
    assert '<input type="hidden" name="naming" value="kiosk-##">' in review.content.decode()
    dana.post(at("pool-add"), _pool(house, step="create"))
    pool = Pool.objects.get(name="Kiosk")
    assert (pool.spare, pool.gives_seed, pool.is_linked) == (3, False, True)
    assert PoolMember.objects.get(pool=pool).weight == 70
    assert {str(e.user or e.group) for e in Entitlement.objects.filter(pool=pool)} == {"alice", "Office staff"}


def test_the_review_says_why_not_all_can_be_built(house: Estate, furniture: Furniture, dana: Client) -> None:
    Hypervisor.objects.filter(pk=house.hypervisor.pk).update(status="down", status_reason="It is down.")
    text = text_of(dana.post(at("pool-add"), _pool(house, step="review")))
    assert "No desktop is available:" in text


def test_going_back_from_the_review_keeps_what_was_typed(house: Estate, furniture: Furniture, dana: Client) -> None:
    page = dana.post(at("pool-add"), _pool(house, step="edit")).content.decode()
    assert 'value="kiosk-##"' in page
    assert f'value="{house.copy.pk}" checked' in page
    assert 'value="70"' in page


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"naming": "kiosk"}, "exactly one run of #"),
        ({"naming": "kiosk-#"}, "add a #"),
        ({"minimum": "30"}, "Not more than the maximum."),
        ({"copies": []}, "Choose at least one template copy"),
        ({"users": "alice, nobody"}, "There is no user named nobody."),
        ({"name": ""}, "This field is required."),
        ({"name": "office"}, "There is already a pool of that name."),
        ({"maximum": "200000", "naming": "kiosk-######"}, "A whole number from 0 to 100000."),
    ],
)
def test_a_wrong_pool_is_refused_field_by_field(
    house: Estate, furniture: Furniture, dana: Client, changes: dict[str, object], words: str
) -> None:
    answer = dana.post(at("pool-add"), _pool(house, step="create") | changes)
    assert answer.status_code == 422
    assert words in text_of(answer)
    assert not Pool.objects.filter(name="Kiosk").exists()


def test_a_pool_says_why_nothing_can_be_built(house: Estate, furniture: Furniture, dana: Client) -> None:
    Hypervisor.objects.filter(pk=house.hypervisor.pk).update(status="down", status_reason="No answer in 10 s.")
    Pool.objects.filter(pk=furniture.held_pool.pk).update(hold_reason="")
    text = text_of(dana.get(at("pool", furniture.held_pool.pk)))
    assert "No desktop is available:" in text
    assert "No desktop is available:" in text_of(dana.get(at("dashboard")))


def test_a_held_pool_goes_on_by_one_click(house: Estate, furniture: Furniture, dana: Client) -> None:
    assert "30 desktops were deleted in the last hour." in text_of(dana.get(at("pool", furniture.held_pool.pk)))
    dana.post(at("pool-resume", furniture.held_pool.pk))
    furniture.held_pool.refresh_from_db()
    assert furniture.held_pool.hold_reason == ""


def test_pools_are_changed_disabled_and_deleted(house: Estate, furniture: Furniture, dana: Client) -> None:
    pk = house.pool.pk
    changed = {name: value for name, value in _pool(house).items() if name not in ("copies", "groups", "users")}
    dana.post(at("pool-edit", pk), changed | {"name": "Office 2"})
    dana.post(at("pool-enable", pk))
    pool = Pool.objects.get(pk=pk)
    assert (pool.name, pool.is_enabled) == ("Office 2", False)
    refused = dana.post(at("pool-delete", pk), {"typed_name": "Office 2"}, headers=HTMX)
    assert "Office 2 still has live desktops (10)." in text_of(refused)
    empty = house.open_pool("Empty")
    dana.post(at("pool-delete", empty.pk), {"typed_name": "Empty"})
    assert not Pool.objects.filter(pk=empty.pk).exists()


def test_a_pool_is_closed_with_a_word_to_its_users(house: Estate, furniture: Furniture, dana: Client) -> None:
    asked = text_of(dana.get(at("pool-enable", house.pool.pk)))
    assert "What users are told in the portal" in asked
    dana.post(at("pool-enable", house.pool.pk), {"note": "New images until 14:00."})
    assert "Users read: New images until 14:00." in text_of(dana.get(at("pool", house.pool.pk)))
    refused = dana.post(at("pool-enable", furniture.held_pool.pk), {"note": "x" * 301})
    assert refused.status_code == 422
    assert "At most 300 characters" in text_of(refused)
    assert Pool.objects.get(pk=furniture.held_pool.pk).is_enabled


def test_a_network_is_made_mapped_and_deleted(house: Estate, furniture: Furniture, dana: Client) -> None:
    row, field = house.hypervisor.networks.get(), f"on_{house.hypervisor.pk}"
    shown = text_of(dana.get(at("networks")))
    assert "kvm-01 does not keep it apart" in shown
    dana.post(at("network-add"), {"name": "Office", field: str(row.pk)})
    network = LogicalNetwork.objects.get(name="Office")
    assert network.mappings.get().network == row
    twice = dana.post(at("network-add"), {"name": "office"})
    assert (twice.status_code, "There is already a network of that name." in text_of(twice)) == (422, True)
    dana.post(at("network-edit", network.pk), {"name": "Offices", "wants_isolation": "on", field: ""})
    network.refresh_from_db()
    assert (network.name, network.wants_isolation, network.mappings.exists()) == ("Offices", True, False)
    refused = dana.post(at("network-delete", furniture.network.pk))
    assert "Exams is the network of Classroom" in text_of(refused)
    dana.post(at("network-delete", network.pk))
    assert not LogicalNetwork.objects.filter(pk=network.pk).exists()


def test_a_pool_page_says_what_its_members_cannot_do(house: Estate, furniture: Furniture, dana: Client) -> None:
    page = text_of(dana.get(at("pool", furniture.held_pool.pk)))
    assert "kvm-01 does not keep network Exams apart." in page
    assert "knows no shares" not in page
    Hypervisor.objects.update(takes=["CloneMachine"])
    Pool.objects.filter(pk=house.pool.pk).update(resource_class="high", weight=200, priority=30)
    page = text_of(dana.get(at("pool", house.pool.pk)))
    assert "kvm-01 knows no shares of a host: there the class orders the queue only." in page
    assert "priority 30, weight 200" in page
    Hypervisor.objects.update(takes=["CloneMachine", "ShareResources"])
    assert "wait for their share of the host" in text_of(dana.get(at("pool", house.pool.pk)))


def test_a_member_form_offers_hosts_and_storage_and_tells_faults_where_they_are(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    member = house.pool.members.get()
    wish = {"copy_id": str(house.copy.pk), "weight": "100", "is_enabled": "on"}
    dana.post(at("member-edit", member.pk), wish | {"minimum": "2", "storage": "default", "hosts": ["kvm-01"]})
    member.refresh_from_db()
    assert (member.minimum, member.storage, member.hosts) == (2, "default", ["kvm-01"])
    page = text_of(dana.get(at("pool", house.pool.pk)))
    assert "at least 2" in page
    assert "on 1 chosen host only" in page
    refused = dana.post(at("member-edit", member.pk), wish | {"minimum": "5", "maximum": "3"})
    assert refused.status_code == 422
    assert "id_minimum-error" in refused.content.decode()


def test_a_busy_hypervisor_says_what_it_is_asked_for_now(house: Estate, furniture: Furniture, dana: Client) -> None:
    Hypervisor.objects.filter(pk=house.hypervisor.pk).update(halvings=2, halved_at=timezone.now())
    page = text_of(dana.get(at("hypervisor", house.hypervisor.pk)))
    assert "at most 2 builds at once instead of 8, and 5 other orders instead of 20" in page
    Hypervisor.objects.update(halved_at=timezone.now() - timedelta(hours=1))
    assert "says that it is busy" not in text_of(dana.get(at("hypervisor", house.hypervisor.pk)))


def test_members_and_entitlements_come_and_go(house: Estate, furniture: Furniture, dana: Client) -> None:
    member = house.pool.members.get()
    dana.post(at("member-edit", member.pk), {"copy_id": str(house.copy.pk), "weight": "5", "networks": ["default"]})
    member.refresh_from_db()
    assert (member.weight, member.networks, member.is_enabled) == (5, ["default"], False)
    dana.post(at("member-remove", member.pk))
    assert not house.pool.members.exists()
    dana.post(at("member-add", house.pool.pk), {"copy_id": str(house.copy.pk), "weight": "10"})
    assert house.pool.members.get().weight == 10
    dana.post(at("pool-entitle", house.pool.pk), {"user": "charlie"})
    entitlement = Entitlement.objects.get(pool=house.pool, user=house.charlie)
    dana.post(at("entitlement-withdraw", entitlement.pk))
    assert not Entitlement.objects.filter(user=house.charlie).exists()


def test_an_entitlement_names_one_group_or_one_user(house: Estate, dana: Client) -> None:
    address = at("pool-entitle", house.pool.pk)
    assert "Name either a user or a group." in text_of(dana.post(address))
    assert "There is no user of that name." in text_of(dana.post(address, {"user": "nobody"}))


# --- drift -----------------------------------------------------------------------------------------------------------


def test_drift_tells_left_over_others_and_unknown_machines_apart(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    pages = {kind: text_of(dana.get(at("drift") + f"?kind={kind}")) for kind in ("left_over", "others", "unknown")}
    assert [kind for kind, page in pages.items() if "office-099" in page] == ["left_over"]
    assert [kind for kind, page in pages.items() if "theirs-001" in page] == ["others"]
    assert [kind for kind, page in pages.items() if "file-server" in page] == ["unknown"]
    assert all("office-009" in page for page in pages.values()), "desktops without a machine stand above"
    assert at("drift-delete", furniture.others.pk) not in pages["others"]


def test_a_machine_that_is_just_being_built_is_no_drift_to_act_on(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    Machine.objects.filter(pk=furniture.left_over.pk).update(stamp_key=str(furniture.running.pk))
    page = text_of(dana.get(at("drift")))
    assert "Being built" in page
    assert at("drift-delete", furniture.left_over.pk) not in page


def test_left_overs_are_deleted_by_name_and_unknown_ones_forgotten(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    address = at("drift-delete", furniture.left_over.pk)
    assert dana.post(address, {"typed_name": "office"}).status_code == 422
    dana.post(address, {"typed_name": "office-099"})
    order = Operation.objects.get(kind="delete", parameters__machine=furniture.left_over.platform_id)
    assert order.requested_by == house.dana
    assert "Being deleted" in text_of(dana.get(at("drift")))
    dana.post(at("drift-forget", furniture.unknown.pk))
    strays = dana.get(at("drift") + "?kind=unknown").context["strays"]
    assert "file-server" not in {stray.machine.name for stray in strays}


def test_another_installations_machine_is_neither_adopted_nor_deleted(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    answer = dana.post(at("drift-delete", furniture.others.pk), {"typed_name": "theirs-001"})
    assert "belongs to another installation" in text_of(answer)
    answer = dana.post(at("drift-adopt", furniture.others.pk), {"pool": str(house.pool.pk)})
    assert answer.status_code == 422
    assert "belongs to another installation" in text_of(answer)


def test_a_machine_is_adopted_for_a_user(house: Estate, furniture: Furniture, dana: Client) -> None:
    Pool.objects.filter(pk=house.pool.pk).update(maximum=50)
    dana.post(at("drift-adopt", furniture.unknown.pk), {"pool": str(house.pool.pk), "user": "charlie"})
    adopted = Desktop.objects.get(name="file-server")
    assert adopted.assignments.get(until=None).user == house.charlie


# --- requests and people ---------------------------------------------------------------------------------------------


def test_a_request_is_cancelled_after_a_question(house: Estate, furniture: Furniture, dana: Client) -> None:
    address = at("request-cancel", furniture.waiting.pk)
    assert "Cancel the request of bob?" in text_of(dana.get(address))
    dana.post(address)
    furniture.waiting.refresh_from_db()
    assert furniture.waiting.state == "cancelled"


def test_a_token_is_shown_once_and_can_be_revoked(house: Estate, dana: Client) -> None:
    answer = dana.post(at("token-add", house.dana.pk), {"name": "report", "days": "30", "scopes": ["admin"]})
    token = ApiToken.objects.get(name="report")
    plain = str(answer.context["plain"])
    assert plain in answer.content.decode()
    assert answer["Cache-Control"] == "no-store"
    page = dana.get(at("user", house.dana.pk)).content.decode()
    assert plain not in page
    assert token.prefix in page
    dana.post(at("token-revoke", token.pk))
    token.refresh_from_db()
    assert token.revoked_at is not None


def test_a_user_gets_no_token_to_administer(house: Estate, dana: Client) -> None:
    answer = dana.post(at("token-add", house.bob.pk), {"name": "x", "days": "30", "scopes": ["admin"]})
    assert answer.status_code == 422
    assert not ApiToken.objects.exists()


def test_accounts_are_made_closed_and_opened(house: Estate, dana: Client) -> None:
    made = {"name": "erin", "password": "a fine long password", "groups": [str(house.staff.pk)]}
    dana.post(at("user-add"), made)
    erin = User.objects.get(username="erin")
    assert list(erin.groups.all()) == [house.staff]
    assert not erin.is_staff
    dana.post(at("user-active", erin.pk))
    assert not User.objects.get(pk=erin.pk).is_active
    dana.post(at("user-active", erin.pk))
    dana.post(at("user-password", erin.pk), {"password": "another fine password"})
    dana.post(at("user-groups", erin.pk), {"groups": []})
    erin.refresh_from_db()
    assert erin.is_active
    assert erin.check_password("another fine password")
    assert not erin.groups.exists()


def test_weak_passwords_and_taken_names_are_refused_on_the_form(house: Estate, dana: Client) -> None:
    answer = dana.post(at("user-add"), {"name": "Alice", "password": "1234"})
    assert answer.status_code == 422
    assert "There is already a user of that name." in text_of(answer)
    assert "too short" in text_of(answer)
    assert PASSWORD not in text_of(answer)


def test_nobody_closes_the_own_account(house: Estate, dana: Client) -> None:
    answer = dana.post(at("user-active", house.dana.pk), headers=HTMX)
    assert answer.status_code == 422
    assert "You cannot close your own account." in text_of(answer)


def test_groups_are_added(house: Estate, dana: Client) -> None:
    dana.post(at("group-add"), {"name": "Teachers"})
    assert "Teachers" in text_of(dana.get(at("people")))
    assert dana.post(at("group-add"), {"name": "Teachers"}).status_code == 422


def test_what_is_to_be_said_waits_for_a_page_that_is_shown(house: Estate, dana: Client) -> None:
    dana.post(at("group-add"), {"name": "Teachers"})
    assert dana.get("/console/hypervisors/gone/", headers=HTMX).status_code == 404, "a part of the page being left"
    assert "The group Teachers was added." in text_of(dana.get(at("people")))
    assert "The group Teachers was added." not in text_of(dana.get(at("people")))


# --- search and filters ----------------------------------------------------------------------------------------------


def test_search_finds_every_noun_and_goes_straight_to_the_only_hit(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    for words, name in (("office-00", "desktop"), ("Class", "pool"), ("Debian", "template"), ("kvm-0", "hypervisor")):
        hits = dana.get(at("search"), {"q": words}, headers=HTMX).content.decode()
        assert f">{name}<" in hits.replace("\n", "").replace(" ", "") or name in hits
    only = dana.get(at("search"), {"q": "office-002"})
    assert only["Location"] == at("desktop", Desktop.objects.get(name="office-002").pk)
    by_user = dana.get(at("search"), {"q": "alice"}, headers=HTMX).content.decode()
    assert "office-001" in by_user, "a desktop is found by its user's name"
    assert "Nothing is named like" in dana.get(at("search"), {"q": "zzz"}, headers=HTMX).content.decode()


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"state": "ready"}, {"office-002", "office-003", "office-004", "office-005", "task-002"}),
        ({"state": "off"}, {"office-003"}),
        ({"state": "silent"}, {"office-004"}),
        ({"state": "maintenance"}, {"office-005", "engineering-001"}),
        ({"state": "coming"}, {"office-006", "office-007"}),
        ({"state": "failed"}, {"office-008"}),
        ({"state": "missing"}, {"office-009"}),
        ({"state": "gone"}, {"office-011"}),
        ({"q": "alice"}, {"office-001"}),
        ({"q": "192.168.122.41"}, {"office-001"}),
    ],
)
def test_desktops_are_filtered_by_the_address(
    house: Estate, furniture: Furniture, dana: Client, wanted: dict[str, str], names: set[str]
) -> None:
    page = dana.get(at("desktops"), wanted)
    assert {desktop.name for desktop in page.context["page"]} == names


def test_operations_and_audit_are_filtered_by_the_address(house: Estate, furniture: Furniture, dana: Client) -> None:
    rows: Callable[[str, dict[str, str]], int] = lambda name, wanted: len(dana.get(at(name), wanted).context["page"])  # noqa: E731
    assert rows("operations", {"state": "unfinished"}) == 2
    assert rows("operations", {"state": "failed", "kind": "power"}) == 1
    assert rows("operations", {"q": "office-008"}) == 1
    assert rows("audit", {"noun": "pool", "actor": "dana", "q": "change"}) == 1
    assert rows("audit", {"actor": "bob"}) == 0
    assert rows("requests", {"state": "queue"}) == 1
    assert rows("requests", {"pool": str(house.pool.pk)}) == 1
