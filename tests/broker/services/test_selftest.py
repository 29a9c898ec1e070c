"""A hypervisor is tried out, and the transcript tells the truth."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from broker.models import AuditEntry
from broker.services import selftest
from broker.services.errors import Forbidden, Missing
from tests.broker.plant import PASSWORD, Plant

GOLDEN = "template-golden"


def transcript(plant: Plant, template: str = "") -> dict[str, selftest.Step]:
    steps = list(selftest.run(actor=plant.dana, name="instant-1", template=template))
    return {step.name: step for step in steps}


def test_without_a_template_it_only_reads(plant: Plant) -> None:
    plant.add_hypervisor()
    steps = transcript(plant)
    assert list(steps) == ["Sign in and look", "Read everything", "Read it again"]
    assert all(step.is_passed for step in steps.values())
    assert not plant.world().rows("SELECT * FROM act")
    assert AuditEntry.objects.filter(action="hypervisor.selftest", actor=plant.dana).exists()


def test_a_scratch_machine_lives_through_everything_and_is_gone(plant: Plant) -> None:
    plant.add_hypervisor()
    steps = transcript(plant, GOLDEN)
    assert all(step.is_passed for step in steps.values()), steps
    assert "Remove it" in steps
    assert {row[0] for row in plant.world().rows("SELECT DISTINCT kind FROM act")} >= {"CloneMachine", "DeleteMachine"}
    assert not plant.world().machines()


def test_a_step_that_fails_is_the_last_and_the_machine_is_gone_all_the_same(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.world().faults.set("fail_clone")
    steps = transcript(plant, GOLDEN)
    failed = steps["Clone a scratch machine"]
    assert not failed.is_passed
    assert "the platform's words: internal error 0xC10E" in failed.lines
    assert "Start it" not in steps
    assert not plant.world().machines()


def test_an_unknown_template_is_said_and_nothing_is_made(plant: Plant) -> None:
    plant.add_hypervisor()
    steps = transcript(plant, "windows-95")
    assert "There is no template 'windows-95'" in steps["Read everything"].lines[0]
    assert not plant.world().rows("SELECT * FROM act")


def test_an_endpoint_that_refuses_us_is_asked_once(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.world().faults.set("credentials")
    steps = transcript(plant, GOLDEN)
    assert list(steps) == ["Sign in and look"]
    assert not steps["Sign in and look"].is_passed


def test_a_secret_that_the_platform_repeats_is_not_in_the_transcript(plant: Plant) -> None:
    step = selftest.Step("Sign in", False, 0.1, (f"the platform's words: {PASSWORD} is wrong",))
    assert selftest._without([PASSWORD], step).lines == ("the platform's words: *** is wrong",)


def test_it_is_for_administrators_and_for_what_is_registered(plant: Plant) -> None:
    plant.add_hypervisor()
    with pytest.raises(Forbidden):
        next(selftest.run(actor=plant.alice, name="instant-1"))
    with pytest.raises(Missing, match="no hypervisor named 'elsewhere'"):
        next(selftest.run(actor=plant.dana, name="elsewhere"))


def test_the_command_prints_each_step_and_fails_if_one_did(plant: Plant) -> None:
    plant.add_hypervisor()
    out = StringIO()
    call_command("selftest", "instant-1", "--user", "dana", "--scratch", GOLDEN, stdout=out)
    assert "Everything passed." in out.getvalue()
    assert PASSWORD not in out.getvalue()
    plant.world().faults.set("refuse")
    with pytest.raises(CommandError, match="A step failed"):
        call_command("selftest", "instant-1", "--user", "dana", stdout=out)
    assert "FAILED" in out.getvalue()
