"""Entitlements by API: whole desktops and single applications are told apart."""

from __future__ import annotations

from uuid import uuid4

from broker.models import Application, Entitlement
from tests.broker.api.conftest import Callers
from tests.broker.portal.cast import Estate


def test_an_entitlement_says_whether_it_is_for_desktops_or_for_one_application(house: Estate, calling: Callers) -> None:
    dana, pool = calling(house.dana), str(house.pool.pk)
    Entitlement.objects.all().delete()
    application = Application.objects.create(pool=house.pool, name="Writer", command="writer")
    wish = {"pool": pool, "user": "bob"}
    whole = dana.post("/entitlements", wish)
    alone = dana.post("/entitlements", wish | {"application": str(application.pk)})
    assert (whole.status, alone.status) == (201, 201)
    told = {item["id"]: item["application"] for item in dana.get(f"/entitlements?pool={pool}").body["items"]}
    assert told == {whole.body["id"]: None, alone.body["id"]: str(application.pk)}
    assert dana.post("/entitlements", wish | {"application": str(application.pk)}).status == 200


def test_an_application_of_another_pool_is_not_found(house: Estate, calling: Callers) -> None:
    other = Application.objects.create(pool=house.open_pool("Other"), name="Writer", command="writer")
    for unknown in (str(other.pk), str(uuid4())):
        wish = {"pool": str(house.pool.pk), "user": "bob", "application": unknown}
        assert calling(house.dana).post("/entitlements", wish).status == 404
