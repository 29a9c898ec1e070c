from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from broker.models import Event, Host, Hypervisor
from broker.services.setwise import insert_together, update_each

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _rows(count: int) -> list[Hypervisor]:
    Hypervisor.objects.bulk_create(Hypervisor(name=f"h{n:04}", kind="instant") for n in range(count))
    return list(Hypervisor.objects.order_by("name"))


def test_every_row_gets_its_own_values_of_every_type() -> None:
    rows = _rows(3)
    for number, row in enumerate(rows):
        row.name, row.settings, row.secrets = f"it's %s {number}", {"n": [number, None, "é"]}, bytes([number, 0, 255])
        row.status_since, row.memory_ratio, row.is_draining = (NOON if number else None), number + 0.5, number == 1
    fields = ["name", "settings", "secrets", "status_since", "memory_ratio", "is_draining"]
    assert update_each(rows, fields) == 3
    for number, row in enumerate(Hypervisor.objects.order_by("name")):
        assert (row.name, row.settings) == (f"it's %s {number}", {"n": [number, None, "é"]})
        assert (bytes(row.secrets), row.status_since) == (bytes([number, 0, 255]), NOON if number else None)
        assert (row.memory_ratio, row.is_draining) == (number + 0.5, number == 1)


def test_other_fields_and_other_rows_stay_as_they_are() -> None:
    first, second, gone = _rows(3)
    Hypervisor.objects.filter(pk=gone.pk).delete()
    first.product, first.kind = "new", "not written"
    gone.product = "new"
    assert update_each([first, gone], ["product"]) == 1
    assert list(Hypervisor.objects.order_by("name").values_list("product", "kind")) == [
        ("new", "instant"),
        ("", "instant"),
    ]
    second.refresh_from_db()
    assert second.product == ""


def test_more_rows_than_a_statement_takes_are_all_written() -> None:
    rows = _rows(700)
    for row in rows:
        row.product = row.name
    assert update_each(rows, ["product", "failures"]) == 700
    assert Hypervisor.objects.filter(product="").count() == 0


def test_no_rows_cost_no_statement() -> None:
    with CaptureQueriesContext(connection) as asked:
        assert update_each([], ["product"]) == 0
    assert not asked.captured_queries


def test_rows_of_several_models_go_in_together_and_in_order() -> None:
    hypervisor = Hypervisor(name="h", kind="instant", settings={"it's": "%s"})
    host = Host(hypervisor=hypervisor, platform_id="1", name="one", vcpus=1, memory_mib=1, seen_at=NOON)
    event = Event(at=NOON, kind="hypervisor.back", message="It's %s", hypervisor=hypervisor)
    insert_together([hypervisor, host, event])
    assert Host.objects.get().hypervisor.settings == {"it's": "%s"}
    assert Event.objects.get().message == "It's %s"
    hypervisor.product = "changed"
    hypervisor.save()
    assert Hypervisor.objects.get().product == "changed"


def test_what_breaks_a_constraint_is_refused_with_all_that_came_with_it() -> None:
    (first,) = _rows(1)
    with pytest.raises(IntegrityError), transaction.atomic():
        insert_together([Event(at=NOON, kind="x.y", message="-"), Hypervisor(name=first.name, kind="instant")])
    assert not Event.objects.exists()
