"""Registering hypervisors, changing how they are reached, and removing them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from django.utils import timezone
from pytest_django import Settings

from broker.domain.lifecycle import State
from broker.hypervisors import sealing
from broker.models import AuditEntry, Desktop, Host, Hypervisor, Operation, PoolMember
from broker.services import brokering, hypervisors, nudges
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db

TLS = {"transport": "tls", "address": "kvm-02.example", "ca_certificate": "-----BEGIN", "password": "open sesame"}


def register(house: Estate, **changed: Any) -> Hypervisor:
    wish: dict[str, Any] = {"actor": house.dana, "name": "kvm-02", "kind": "kvm", "values": TLS} | changed
    return hypervisors.register_hypervisor(**wish)


def test_a_new_hypervisor_is_new_and_a_worker_is_told_to_look(house: Estate, hints: Callable[[], Any]) -> None:
    with hints() as sent:
        made = register(house)
    assert (made.status, made.settings["address"]) == ("new", "kvm-02.example")
    assert (nudges.INVENTORY, str(made.pk)) in sent
    assert made.next_inventory_at is not None


def test_secrets_are_sealed_and_stand_neither_in_settings_nor_in_the_audit(house: Estate) -> None:
    made = register(house)
    assert sealing.unseal(made.secrets) == {"password": "open sesame"}
    assert b"sesame" not in bytes(made.secrets)
    assert "sesame" not in str(made.settings)
    entry = AuditEntry.objects.get(action="hypervisor.register")
    assert entry.changes["password"] == [None, "(secret)"]
    assert entry.changes["address"] == [None, "kvm-02.example"]
    assert "sesame" not in str(entry.changes)


@pytest.mark.parametrize("person", ["alice", "bob", "charlie"])
def test_only_administrators_register_change_drain_and_remove(house: Estate, person: str) -> None:
    actor, known = getattr(house, person), house.hypervisor.pk
    for verb in (
        lambda: register(house, actor=actor),
        lambda: hypervisors.change_hypervisor(actor=actor, hypervisor_id=known, name="x", values={}),
        lambda: hypervisors.recheck_hypervisor(actor=actor, hypervisor_id=known),
        lambda: hypervisors.drain_hypervisor(actor=actor, hypervisor_id=known, on=True),
        lambda: hypervisors.confirm_absence(actor=actor, hypervisor_id=known),
        lambda: hypervisors.remove_hypervisor(actor=actor, hypervisor_id=known),
        lambda: hypervisors.set_budgets(
            actor=actor, hypervisor_id=known, build_budget=1, power_budget=1, memory_ratio=1, vcpu_ratio=1
        ),
    ):
        with pytest.raises(Forbidden):
            verb()
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"name": "two\nlines"}, "name"),
        ({"name": "x" * 300}, "name"),
        ({"name": "KVM-01"}, "name"),
        ({"kind": "abacus"}, "kind"),
        ({"values": {"transport": "pigeon"}}, "transport"),
        ({"values": {"port": "many"}}, "port"),
        ({"values": {"port": "-1"}}, "port"),
        ({"values": {"address": "a\nb"}}, "address"),
        ({"values": {"address": "x" * 501}}, "address"),
        ({"values": {"password": "a\0b"}}, "password"),
        ({"values": {"colour": "blue"}}, "colour"),
        ({"values": {"transport": "tls"}}, "settings"),
    ],
)
def test_wrong_input_is_told_field_by_field_and_nothing_is_registered(
    house: Estate, wish: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        register(house, **wish)
    assert list(refused.value.fields) == [field]
    assert Hypervisor.objects.count() == 1


@pytest.mark.parametrize("name", ["host with spaces", 'it\'s "quoted"', "../../etc", "主機一"])
def test_names_are_data(house: Estate, name: str) -> None:
    assert register(house, name=name).name == name


def test_a_blank_secret_keeps_the_old_one(house: Estate) -> None:
    made = register(house)
    changed = hypervisors.change_hypervisor(
        actor=house.dana, hypervisor_id=made.pk, name="kvm-02", values={"address": "elsewhere", "password": ""}
    )
    assert sealing.unseal(changed.secrets) == {"password": "open sesame"}
    assert changed.settings["address"] == "elsewhere"
    assert changed.settings["transport"] == "tls"
    entry = AuditEntry.objects.get(action="hypervisor.change")
    assert entry.changes == {"address": ["kvm-02.example", "elsewhere"]}


def test_a_new_secret_replaces_the_old_one_and_the_audit_says_only_that(house: Estate) -> None:
    made = register(house)
    changed = hypervisors.change_hypervisor(
        actor=house.dana, hypervisor_id=made.pk, name="kvm-02", values={"password": "another"}
    )
    assert sealing.unseal(changed.secrets) == {"password": "another"}
    assert AuditEntry.objects.get(action="hypervisor.change").changes == {"password": ["(secret)", "(secret)"]}


def test_changing_access_asks_a_refused_hypervisor_anew(house: Estate, hints: Callable[[], Any]) -> None:
    made = register(house)
    later = timezone.now() + timedelta(hours=1)
    Hypervisor.objects.filter(pk=made.pk).update(status="refused", status_reason="Wrong.", retry_at=later, failures=7)
    with hints() as sent:
        hypervisors.change_hypervisor(actor=house.dana, hypervisor_id=made.pk, name="kvm-02", values={"password": "x"})
    made.refresh_from_db()
    assert (made.status, made.status_reason, made.retry_at, made.failures) == ("new", "", None, 0)
    assert {(nudges.INVENTORY, str(made.pk)), (nudges.PUMP, str(made.pk))} <= set(sent)


def test_rechecking_leaves_a_doubt_as_it_is(house: Estate) -> None:
    Hypervisor.objects.update(status="doubt", doubt=["a"])
    assert hypervisors.recheck_hypervisor(actor=house.dana, hypervisor_id=house.hypervisor.pk).status == "doubt"


def test_only_a_doubt_can_be_confirmed(house: Estate) -> None:
    with pytest.raises(Clash, match="in doubt"):
        hypervisors.confirm_absence(actor=house.dana, hypervisor_id=house.hypervisor.pk)
    Hypervisor.objects.update(status="doubt", doubt=["a", "b"])
    confirmed = hypervisors.confirm_absence(actor=house.dana, hypervisor_id=house.hypervisor.pk)
    assert confirmed.absence_confirmed_at is not None
    assert AuditEntry.objects.get().changes == {"machines": [["a", "b"], []]}


def test_draining_tells_every_pool_that_builds_there(house: Estate, hints: Callable[[], Any]) -> None:
    with hints() as sent:
        hypervisors.drain_hypervisor(actor=house.dana, hypervisor_id=house.hypervisor.pk, on=True)
        hypervisors.drain_hypervisor(actor=house.dana, hypervisor_id=house.hypervisor.pk, on=True)
    assert sent == [(nudges.RECONCILE, str(house.pool.pk))]
    assert AuditEntry.objects.get().changes == {"is_draining": [False, True]}


def test_draining_a_host_tells_every_pool_that_has_desktops_there(house: Estate, hints: Callable[[], Any]) -> None:
    host = Host.objects.create(
        hypervisor=house.hypervisor, platform_id="h", name="host", vcpus=8, memory_mib=16384, seen_at=timezone.now()
    )
    with hints() as sent:
        for _ in range(2):
            hypervisors.drain_host(actor=house.dana, host_id=host.pk, on=True)
    assert sent == [(nudges.RECONCILE, str(house.pool.pk))]
    assert AuditEntry.objects.get().action == "host.drain"
    with pytest.raises(Forbidden):
        hypervisors.drain_host(actor=house.alice, host_id=host.pk, on=False)


def test_budgets_are_whole_and_in_bounds(house: Estate) -> None:
    with pytest.raises(Invalid) as refused:
        hypervisors.set_budgets(
            actor=house.dana,
            hypervisor_id=house.hypervisor.pk,
            build_budget=0,
            power_budget=5,
            memory_ratio=float("nan"),
            vcpu_ratio=4,
        )
    assert set(refused.value.fields) == {"build_budget", "memory_ratio"}


def test_a_hypervisor_in_use_is_not_removed_and_says_why(house: Estate) -> None:
    with pytest.raises(Clash, match="member of Office"):
        hypervisors.remove_hypervisor(actor=house.dana, hypervisor_id=house.hypervisor.pk)
    PoolMember.objects.all().delete()
    with pytest.raises(Clash, match=r"live desktops \(1\)"):
        hypervisors.remove_hypervisor(actor=house.dana, hypervisor_id=house.hypervisor.pk)


def test_removing_takes_the_history_along_and_leaves_the_audit(house: Estate) -> None:
    brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    Operation.objects.update(state="done")
    Desktop.objects.update(state=State.GONE)
    PoolMember.objects.all().delete()
    hypervisors.remove_hypervisor(actor=house.dana, hypervisor_id=house.hypervisor.pk)
    assert not Hypervisor.objects.exists()
    assert not Operation.objects.exists()
    assert AuditEntry.objects.filter(action="desktop.release").exists()
    assert AuditEntry.objects.filter(action="hypervisor.remove", object_name="kvm-01").exists()


def test_a_hypervisor_that_is_still_busy_is_not_removed(house: Estate) -> None:
    PoolMember.objects.all().delete()
    brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    Desktop.objects.update(state=State.GONE)
    with pytest.raises(Clash, match="still busy") as refused:
        hypervisors.remove_hypervisor(actor=house.dana, hypervisor_id=house.hypervisor.pk)
    assert refused.value.operation == Operation.objects.get()
    assert Hypervisor.objects.exists()


def test_an_unknown_one_is_missing(house: Estate) -> None:
    with pytest.raises(Missing):
        hypervisors.recheck_hypervisor(actor=house.dana, hypervisor_id=uuid4())


def test_secrets_move_to_the_newest_key_and_the_old_key_may_go(house: Estate, settings: Settings) -> None:
    made = register(house)
    old, new = settings.VAULT_KEYS[0], Fernet.generate_key().decode()
    settings.VAULT_KEYS = [new, old]
    assert hypervisors.rotate_secrets() == 1
    settings.VAULT_KEYS = [new]
    made.refresh_from_db()
    assert sealing.unseal(made.secrets) == {"password": "open sesame"}


def test_every_installed_connector_is_listed_with_its_orders() -> None:
    kvm = next(one for one in hypervisors.connector_kinds() if one.kind == "kvm")
    assert {"CloneMachine", "DeleteMachine", "OpenScreen"} <= set(kvm.orders)
    assert kvm.version


def test_a_doubt_outlives_a_refused_sign_in(house: Estate) -> None:
    Hypervisor.objects.update(status="refused", doubt=["a"])
    checked = hypervisors.recheck_hypervisor(actor=house.dana, hypervisor_id=house.hypervisor.pk)
    assert checked.status == "doubt"
    assert "vanished" in checked.status_reason
