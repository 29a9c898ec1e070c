"""Every combination of the axes has one label, and the worst news comes first."""

from __future__ import annotations

import itertools
from enum import StrEnum
from types import SimpleNamespace

import pytest

from broker.domain import labels
from broker.domain.labels import Tone, Wait, label, wait
from broker.domain.lifecycle import State

POWERS = ("on", "off", "suspended", "unknown")


def test_every_combination_has_a_label() -> None:
    both = (False, True)
    operations = ("", "power", "clone", "recycle", "delete", "snapshot", "revert", "unsnapshot", "reconfigure")
    for state, power, session, answering, maintenance, operation, agent in itertools.product(
        State, POWERS, both, both, both, operations, both
    ):
        found = label(state, power, session, answering, maintenance, operation, has_agent=agent)
        assert found.text
        assert found.icon
        assert isinstance(found.tone, Tone)


@pytest.mark.parametrize("state", sorted(set(State) - {State.READY, State.ASSIGNED}))
def test_a_desktop_that_cannot_be_used_says_so_whatever_else_is_true(state: State) -> None:
    assert label(state, "on", True, True, True, "power") == label(state, "off", False, False, False)


def test_work_on_it_comes_before_maintenance_and_maintenance_before_use() -> None:
    assert label(State.ASSIGNED, "on", True, True, True, "power").text == "Changing power"
    assert label(State.ASSIGNED, "on", True, True, True).text == "Maintenance"
    assert label(State.ASSIGNED, "on", True, True, False).text == "In use"


def test_a_silent_guest_needs_attention_unless_nobody_expects_it_to_answer() -> None:
    assert label(State.READY, "on", False, False, False).tone == Tone.ATTENTION
    assert label(State.READY, "on", False, False, False, has_agent=False).tone == Tone.GOOD


def test_a_switched_off_desktop_is_not_alarming() -> None:
    assert label("ready", "off", False, False, False).tone == Tone.OFF


def test_texts_differ_where_things_differ() -> None:
    texts = [label(state, "on", False, True, False).text for state in State]
    assert len(set(texts)) == len(texts)


def test_all_states_of_rows_have_labels() -> None:
    from broker.models import Hypervisor, Operation, RecoveryPoint, ReplicationRun, Request, Vault

    assert all(labels.hypervisor_label(status.value) for status in Hypervisor.Status)
    assert all(labels.operation_label(state.value) for state in Operation.State)
    assert all(labels.request_label(state.value) for state in Request.State)
    assert all(labels.vault_label(status.value) for status in Vault.Status)
    assert all(labels.run_label(state.value) for state in ReplicationRun.State)
    assert all(labels.point_label(state.value) for state in RecoveryPoint.State)


def test_how_consistent_a_point_is_stands_in_words() -> None:
    from connectors.replication import Consistency

    words = {consistency: labels.consistency_label(consistency).text for consistency in Consistency}
    assert words == {
        "guest": "File systems frozen", "crash": "As after a power cut", "off": "The machine was off",
    }  # fmt: skip
    assert labels.consistency_label("?").text == "Not known"


def test_a_broken_promise_is_told_before_anything_but_a_pause() -> None:
    def told(*, chosen: bool = True, enabled: bool = True, point: bool = True, kept: bool = True) -> str:
        return labels.promise_label(is_chosen=chosen, is_enabled=enabled, has_point=point, is_kept=kept).text

    assert told() == "RPO kept"
    assert told(kept=False) == told(kept=False, point=False) == "RPO broken"
    assert told(point=False) == "First point to come"
    assert told(kept=False, enabled=False) == "Paused"
    assert told(kept=False, chosen=False) == "Not replicated any more"


def test_a_policy_says_for_how_many_machines_its_promise_is_broken() -> None:
    label = labels.policy_label(is_enabled=True, machines=4, broken=1, without_point=2)
    assert (label.text, label.tone) == ("RPO broken for 1 of 4", Tone.BAD)
    assert labels.policy_label(is_enabled=True, machines=0, broken=0, without_point=0).tone == Tone.ATTENTION
    assert labels.policy_label(is_enabled=True, machines=4, broken=0, without_point=2).text == "First points to come"
    assert labels.policy_label(is_enabled=True, machines=4, broken=0, without_point=0).text == "RPO kept"


def test_a_run_that_is_cancelled_or_tried_again_says_so() -> None:
    assert labels.run_label("running", is_to_end=True).text == "Being cancelled"
    assert labels.run_label("cancelled", is_to_end=True).text == "Cancelled"
    assert labels.run_label("queued", is_retried=True).tone == Tone.ATTENTION
    assert labels.run_label("running", is_retried=True).text == "Running"


def test_being_emptied_does_not_hide_that_a_hypervisor_is_down() -> None:
    assert labels.hypervisor_label("up", is_draining=True).text == "Draining"
    assert labels.hypervisor_label("down", is_draining=True).text == "Down"


def test_a_wait_goes_through_its_four_words_in_order() -> None:
    steps: list[StrEnum] = [
        wait(has_desktop=False, power="unknown", is_answering=False),
        wait(has_desktop=True, power="off", is_answering=False),
        wait(has_desktop=True, power="on", is_answering=False),
        wait(has_desktop=True, power="on", is_answering=True),
    ]
    assert tuple(steps) == labels.WAITS
    assert wait(has_desktop=True, power="on", is_answering=False, waits_for_guest=False) == Wait.CONNECTING


@pytest.mark.parametrize(
    ("is_enabled", "protocol", "people", "text"),
    [
        (False, "rdp", 3, "Not offered"),
        (True, "vnc", 3, "Its pool shows VNC"),
        (True, "rdp", 0, "For nobody yet"),
        (True, "rdp", 1, "Offered"),
    ],
)
def test_an_application_says_why_nobody_has_it(is_enabled: bool, protocol: str, people: int, text: str) -> None:
    row = SimpleNamespace(is_enabled=is_enabled, pool=SimpleNamespace(protocol=protocol), people=people)
    assert labels.application_label(row).text == text
