"""By whom client files are signed: shown to all of the console, changed by administrators."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography import x509
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from broker.domain.permissions import Role
from broker.models import AuditEntry, FileSigner
from broker.services import people, pools, signing
from tests.broker.portal.cast import Estate, squeezed
from tests.broker.services.test_signing import made, pem

As = Callable[[User], Client]
PAGE = reverse("console:client-files")
BRING = reverse("console:client-files-bring")


def test_the_page_shows_the_certificate_and_gives_it_as_a_file(house: Estate, dana: Client) -> None:
    page = dana.get(PAGE).content.decode()
    shown = signing.signer()
    assert shown.sha1 in page
    assert shown.sha256 in page
    assert "this installation has no such door" in page
    answer = dana.get(reverse("console:client-files-certificate"))
    assert answer.headers["Content-Type"] == "application/pkix-cert"
    assert x509.load_der_x509_certificate(answer.content) == shown.certificate


def test_where_there_is_a_door_the_pools_that_use_it_are_named(house: Estate, dana: Client, settings: Settings) -> None:
    settings.RDP_ADDRESS = "desk.example:3390"
    assert "No pool lets its users do so yet" in dana.get(PAGE).content.decode()
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, native_clients=True)
    page = squeezed(dana.get(PAGE).content)
    assert "desk.example:3390" in page
    assert f">{house.pool}</a>" in page


def test_a_certificate_is_brought_and_its_key_never_shown_again(house: Estate, dana: Client) -> None:
    own, key = made("desk.example")
    answer = dana.post(BRING, {"certificates": own, "key": pem(key, "secret"), "password": "secret"}, follow=True)
    page = answer.content.decode()
    assert "Files are signed by desk.example from now on." in page
    assert "PRIVATE KEY" not in page + dana.get(BRING).content.decode()
    assert AuditEntry.objects.get(action="files.change_signer").actor == house.dana


def test_what_is_wrong_is_said_at_its_field_and_the_password_is_not_sent_back(house: Estate, dana: Client) -> None:
    own, key = made("desk.example")
    answer = dana.post(BRING, {"certificates": own, "key": pem(key, "secret"), "password": "not the word"})
    assert answer.status_code == 422
    assert "No private key in PEM" in answer.content.decode()
    assert "not the word" not in answer.content.decode()
    assert dana.post(BRING, {}).status_code == 422
    assert not FileSigner.objects.filter(is_uploaded=True).exists()


def test_a_new_one_is_made_after_a_question(house: Estate, dana: Client) -> None:
    before = signing.signer().sha256
    address = reverse("console:client-files-anew")
    assert "Computers that trust the present one warn" in dana.get(address).content.decode()
    assert signing.signer().sha256 == before
    dana.post(address)
    assert signing.signer().sha256 != before


@pytest.mark.parametrize("role", ["operator", "help_desk", "auditor"])
def test_who_is_no_administrator_sees_it_and_changes_nothing(house: Estate, as_: As, role: str) -> None:
    people.set_role(actor=house.dana, user_id=house.bob.pk, role=Role(role))
    bob, before = as_(User.objects.get(pk=house.bob.pk)), signing.signer().sha256
    assert "Bring your own" not in bob.get(PAGE).content.decode()
    own, key = made("desk.example")
    bob.post(BRING, {"certificates": own, "key": pem(key)})
    bob.post(reverse("console:client-files-anew"))
    assert signing.signer().sha256 == before
    assert as_(house.alice).get(PAGE).status_code == 403
