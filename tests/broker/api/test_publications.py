"""Publications by API: what is missing, what is published, how far it is, and every refusal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from broker.domain.publication import Step
from broker.models import Publication
from broker.services import movers
from tests.broker.api.conftest import Caller, Callers
from tests.broker.api.test_failovers import refused
from tests.broker.plant import Plant
from tests.broker.services.published import ELSEWHERE, HERE, THERE, Press

pytestmark = pytest.mark.django_db


@pytest.fixture
def press(db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Press]:
    movers._stopping.clear()
    # Its thread would not see the rows of the test's transaction.
    monkeypatch.setattr(movers, "_have_a_keeper", lambda: None)
    plant = Plant(tmp_path)
    yield Press(plant, tmp_path / "vault")
    plant.close()


@pytest.fixture
def dana(press: Press, calling: Callers) -> Caller:
    return calling(press.plant.dana)


def of(press: Press, what: str) -> str:
    return f"/templates/{press.version.template_id}/{what}"


def test_it_says_what_is_missing_and_publishes_it_to_the_end(press: Press, dana: Caller) -> None:
    lacks = dana.get(of(press, "lacks")).body
    assert lacks["version"] == str(press.version.pk)
    assert [(one["hypervisor"], one["storage"], one["pools"]) for one in lacks["items"]] == [
        (str(press.plant.hypervisor(name).pk), "storage-1", [str(press.pool.pk)]) for name in (THERE, ELSEWHERE)
    ]
    asked = dana.post(of(press, "publish"), {"vault_id": str(press.vault.pk)})
    assert asked.status == 202
    first, second = asked.body["publications"]
    assert (first["state"], first["step"], first["step_in_words"], first["requested_by"]) == (
        "running", "copying", "Copies the image into the vault", "dana",
    )  # fmt: skip
    assert first["group"] == second["group"]
    assert (first["name"], first["storage"], first["machine_id"], first["copy_id"]) == (
        "Debian-v2", "storage-1", "", None,
    )  # fmt: skip
    for one in (first, second):
        press.end(Publication.objects.get(pk=one["id"]))
    done = dana.get(f"/publications/{first['id']}").body
    assert (done["state"], done["step"], done["error"]) == ("done", "over", "")
    copy = press.copy_at(THERE)
    assert copy is not None
    assert (done["copy_id"], done["machine_id"]) == (str(copy.pk), copy.platform_id)
    assert [line["step"] for line in done["report"]] == [
        "Copies the image into the vault", "Makes the template", "Waits until it is listed",
    ]  # fmt: skip
    assert dana.get(of(press, "lacks")).body["items"] == []
    refused(dana.post(of(press, "publish"), {"vault_id": str(press.vault.pk)}), 409, "No member of a pool lacks")


def test_targets_are_named_one_by_one_and_listed(press: Press, dana: Caller) -> None:
    at = press.target(THERE)
    target = {"hypervisor_id": str(at.hypervisor_id), "storage_id": str(at.storage_id)}
    wish = {
        "vault_id": str(press.vault.pk), "targets": [target], "name": "golden-june",
        "version_id": str(press.version.pk), "source_id": str(press.built.pk),
    }  # fmt: skip
    (made,) = dana.post(of(press, "publish"), wish).body["publications"]
    assert (made["name"], made["source"]) == ("golden-june", str(press.built.pk))
    assert press.member_at(HERE).copy.version == press.plant.version, "nobody asked for more"
    refused(dana.post(of(press, "publish"), wish), 409, "is on its way")
    for query, number in (("state=running", 1), ("state=done", 0), (f"template={press.version.template_id}", 1)):
        assert len(dana.get(f"/publications?{query}").body["items"]) == number
    assert len(dana.get(f"/publications?group={uuid4()}").body["items"]) == 0


def test_it_is_cancelled_once(press: Press, dana: Caller) -> None:
    row = press.at(press.publish(THERE)[0], Step.LANDING)
    asked = dana.post(f"/publications/{row.pk}/cancel")
    assert (asked.status, asked.body["is_to_end"]) == (202, True)
    press.end(row)
    assert dana.get(f"/publications/{row.pk}").body["state"] == "cancelled"
    refused(dana.post(f"/publications/{row.pk}/cancel"), 409, "It is over")


def test_what_is_wrong_is_refused_in_words(press: Press, dana: Caller, calling: Callers) -> None:
    vault = {"vault_id": str(press.vault.pk)}
    nowhere = {"hypervisor_id": str(uuid4()), "storage_id": str(uuid4())}
    refused(dana.post(of(press, "publish"), {"vault_id": str(uuid4())}), 422, "no such vault", "vault_id")
    refused(dana.post(of(press, "publish"), vault | {"source_id": str(uuid4())}), 422, "no copy of", "source_id")
    assert dana.post(of(press, "publish"), vault | {"targets": []}).status == 422
    wrong = dana.post(of(press, "publish"), vault | {"targets": [nowhere]})
    assert wrong.status == 422
    assert "no such hypervisor" in " ".join(wrong.body["fields"].values())
    refused(dana.post(of(press, "publish"), vault | {"version_id": str(uuid4())}), 404, "no such version")
    assert dana.post(f"/templates/{uuid4()}/publish", vault).status == 404
    assert dana.get(f"/publications/{uuid4()}").status == 404
    alice = calling(press.plant.alice)
    for answer in (
        alice.get(of(press, "lacks")), alice.post(of(press, "publish"), vault), alice.get("/publications"),
        alice.get(f"/publications/{uuid4()}"), alice.post(f"/publications/{uuid4()}/cancel"),
    ):  # fmt: skip
        assert answer.status == 403
    assert not Publication.objects.exists()
