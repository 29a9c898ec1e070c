"""Publishing in the console: which places are offered, what is chosen, how far it is, and how it ended."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from broker.models import AuditEntry, Hypervisor, Machine, Pool, PoolMember, Publication, Storage, TemplateCopy, Vault
from tests.broker.console.furniture import Furniture
from tests.broker.console.test_acts import HTMX, at, text_of
from tests.broker.console.test_replication import seen
from tests.broker.portal.cast import Estate


@pytest.fixture
def fresh(house: Estate, furniture: Furniture) -> Furniture:
    """Nothing was published yet."""
    Publication.objects.all().delete()
    return furniture


def page_of(fresh: Furniture) -> str:
    return at("version-publish", fresh.new_version.pk)


def wish_of(fresh: Furniture, **more: object) -> dict[str, object]:
    """To the one place at which a member lacks it."""
    there = fresh.elsewhere
    key = f"{there.pk}-0"
    storage = there.storages.get().pk
    source = TemplateCopy.objects.get(version=fresh.new_version).pk
    wish = {"to": [key], f"storage_{key}": storage, "vault": fresh.vault.pk, "name": "Debian-12-v2", "source": source}
    return wish | more


# --- how it is asked for ----------------------------------------------------------------------------------------------


def test_the_template_offers_it_for_each_version_that_lies_somewhere(
    house: Estate, fresh: Furniture, dana: Client
) -> None:
    template = at("template", fresh.new_version.template_id)
    page = dana.get(template).content.decode()
    assert page.count("Publish to members") == 3
    TemplateCopy.objects.filter(version=fresh.new_version).delete()
    page = dana.get(template).content.decode()
    assert page_of(fresh) not in page


def test_places_where_members_lack_it_are_chosen_with_their_storage(
    house: Estate, fresh: Furniture, dana: Client
) -> None:
    page = dana.get(page_of(fresh))
    words = seen(page)
    assert "Publish Debian 12 v2 to members" in words
    assert "elsewhere-01 Up for Engineering Storage fast, 640 GiB free" in words
    assert "It is read from debian-12-june on kvm-01, which is not touched." in words
    assert "Give it also to members where it lies already:" in words
    assert "Office on kvm-01" in words
    body = page.content.decode()
    assert f'value="{fresh.elsewhere.pk}-0" checked' in body
    assert 'value="Debian-12-v2"' in body


def test_it_is_published_and_followed_from_the_template(house: Estate, fresh: Furniture, dana: Client) -> None:
    answer = dana.post(page_of(fresh), wish_of(fresh), follow=True)
    made = Publication.objects.get()
    assert answer.redirect_chain == [(at("template", fresh.new_version.template_id), 302)]
    assert "Debian 12 v2 goes to 1 place." in seen(answer)
    assert (made.hypervisor, made.storage, made.name, made.requested_by) == (
        fresh.elsewhere, "fast", "Debian-12-v2", house.dana,
    )  # fmt: skip
    assert [member.pool for member in made.members.all()] == [fresh.own_pool]
    assert at("publication", made.pk) in answer.content.decode()
    assert "Copies the image into the vault" in seen(answer)
    assert AuditEntry.objects.filter(action="template.publish", actor=house.dana).count() == 1
    member = PoolMember.objects.get(pool=house.pool)
    assert member.copy == house.copy, "nobody asked for more"
    assert dana.post(page_of(fresh), wish_of(fresh)).status_code == 422
    assert Publication.objects.count() == 1


def test_members_where_it_lies_already_take_it_if_that_is_wished(house: Estate, fresh: Furniture, dana: Client) -> None:
    dana.post(page_of(fresh), wish_of(fresh, to=[], gives_present="on"))
    assert not Publication.objects.exists()
    member = PoolMember.objects.get(pool=house.pool)
    assert member.copy.version == fresh.new_version
    assert "Give it also" not in seen(dana.get(page_of(fresh)))


def test_another_hypervisor_is_offered_with_the_pools_that_could_build_there(
    house: Estate, fresh: Furniture, dana: Client
) -> None:
    new = Hypervisor.objects.create(name="new-01", kind="instant", status="up", status_since=timezone.now())
    storage = Storage.objects.create(
        hypervisor=new, platform_id="disk", name="disk", capacity_mib=1, free_mib=1, seen_at=timezone.now()
    )
    words = seen(dana.get(page_of(fresh)))
    assert "new-01 Up builds nothing from this template Storage disk, 0 GiB free: perhaps too small" in words
    wish = {"to": [str(new.pk)], f"storage_{new.pk}": storage.pk, f"pool_{new.pk}": fresh.own_pool.pk}
    dana.post(page_of(fresh), wish_of(fresh, **wish))
    made = Publication.objects.get()
    assert (made.hypervisor, made.pool) == (new, fresh.own_pool)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"to": []}, "Choose at least one place."),
        ({"vault": ""}, "This field is required."),
        ({"name": ""}, "This field is required."),
        ({"to": ["nowhere"]}, "Select a valid choice."),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_begun(
    change: dict[str, object], words: str, house: Estate, fresh: Furniture, dana: Client
) -> None:
    answer = dana.post(page_of(fresh), wish_of(fresh, **change))
    assert answer.status_code == 422
    assert words in seen(answer)
    assert not Publication.objects.exists()


def test_a_place_that_is_down_is_shown_and_cannot_be_chosen(house: Estate, fresh: Furniture, dana: Client) -> None:
    Hypervisor.objects.filter(pk=fresh.elsewhere.pk).update(status="down")
    page = dana.get(page_of(fresh))
    assert "elsewhere-01 Down It is down." in seen(page)
    assert f'value="{fresh.elsewhere.pk}-0" disabled' in page.content.decode()


def test_what_is_missing_is_said_first(house: Estate, fresh: Furniture, dana: Client) -> None:
    Pool.objects.get(pk=house.pool.pk).members.all().delete()
    Hypervisor.objects.update(kind="tape")
    assert "No copy of it can be read" in seen(dana.get(page_of(fresh)))
    Hypervisor.objects.filter(pk=house.hypervisor.pk).update(kind="kvm")
    TemplateCopy.objects.create(
        version=fresh.new_version, hypervisor=fresh.elsewhere, platform_id="there", name="there", storage="fast",
        vcpus=1, memory_mib=512,
    )  # fmt: skip
    PoolMember.objects.all().delete()
    Hypervisor.objects.exclude(pk__in=[house.hypervisor.pk, fresh.elsewhere.pk]).update(kind="tape")
    assert "It lies everywhere already" in seen(dana.get(page_of(fresh)))


def test_without_a_vault_that_is_said(house: Estate, fresh: Furniture, dana: Client) -> None:
    for model in ("runs", "points", "policies"):
        for vault in Vault.objects.all():
            getattr(vault, model).all().delete()
    Vault.objects.all().delete()
    assert "There is no vault yet" in seen(dana.get(page_of(fresh)))


# --- how far it is ----------------------------------------------------------------------------------------------------


def test_each_place_shows_its_step_and_why_one_failed(house: Estate, furniture: Furniture, dana: Client) -> None:
    words = seen(dana.get(at("template", furniture.new_version.template_id)))
    assert "elsewhere-01 fast Makes the template 65 %" in words
    assert "kvm-03 slow Failed No room for disk vda on kvm-03." in words
    words = seen(dana.get(at("publication", furniture.publishing.pk)))
    assert "Debian 12 v2 to elsewhere-01" in words
    assert "13 GiB of 20 GiB" in words
    assert "Copied 6.2 GiB of 20 GiB. It is the first point." in words
    failed = Publication.objects.get(state="failed")
    page = dana.get(at("publication", failed.pk))
    assert "Nothing of it is left on kvm-03." in seen(page)
    assert page_of(furniture) in page.content.decode(), "it can be asked for again"


def test_only_the_last_attempt_at_each_place_is_shown_and_not_for_ever(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    failed = Publication.objects.get(state="failed")
    again = Publication.objects.create(
        version=failed.version, source=failed.source, vault=failed.vault, hypervisor=failed.hypervisor,
        storage=failed.storage, name=failed.name, group=failed.group, step_since=timezone.now(),
    )  # fmt: skip
    body = dana.get(at("template", furniture.new_version.template_id)).content.decode()
    assert at("publication", again.pk) in body
    assert at("publication", failed.pk) not in body
    Publication.objects.update(state="done", finished_at=timezone.now() - timedelta(days=8))
    body = dana.get(at("template", furniture.new_version.template_id)).content.decode()
    assert "Published to" not in body


def test_it_is_cancelled_after_a_question(house: Estate, furniture: Furniture, dana: Client) -> None:
    address = at("publication-cancel", furniture.publishing.pk)
    assert "Cancel publishing Debian 12 v2 to elsewhere-01?" in text_of(dana.get(address, headers=HTMX))
    dana.post(address)
    furniture.publishing.refresh_from_db()
    assert furniture.publishing.is_to_end
    page = dana.get(at("publication", furniture.publishing.pk))
    assert "Being cancelled" in seen(page)
    assert address not in page.content.decode()


def test_a_published_copy_stands_among_the_copies(house: Estate, furniture: Furniture, dana: Client) -> None:
    Machine.objects.filter(platform_id="golden").delete()
    TemplateCopy.objects.create(
        version=furniture.new_version, hypervisor=furniture.elsewhere, platform_id="published", name="Debian-12-v2",
        storage="fast", vcpus=1, memory_mib=512,
    )  # fmt: skip
    words = seen(dana.get(at("template", furniture.new_version.template_id)))
    assert "Debian-12-v2 elsewhere-01 fast" in words
