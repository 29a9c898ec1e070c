"""Templates, versions and linked copies."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import AuditEntry, Desktop, Machine, Operation, PoolMember, Template, TemplateCopy, TemplateVersion
from broker.selectors.hypervisors import template_candidates
from broker.services import brokering, templates
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


def listed(house: Estate, **fields: Any) -> Machine:
    """A template as inventory found it."""
    values = {
        "platform_id": "image-2", "name": "tiny", "power": "off", "vcpus": 2, "memory_mib": 512, "is_template": True,
        "template_disk_mib": 300, "template_storage": "default", "seen_at": timezone.now(),
    }  # fmt: skip
    return Machine.objects.create(hypervisor=house.hypervisor, **(values | fields))


def version_of(house: Estate, name: str = "Tiny") -> TemplateVersion:
    template = templates.create_template(actor=house.dana, name=name)
    return templates.add_version(actor=house.dana, template_id=template.pk)


def test_versions_count_up(house: Estate) -> None:
    template = templates.create_template(actor=house.dana, name="Tiny", os="Linux", description="For tests")
    numbers = [templates.add_version(actor=house.dana, template_id=template.pk).number for _ in range(3)]
    assert numbers == [1, 2, 3]
    assert AuditEntry.objects.filter(action="template.add_version").count() == 3


def test_a_copy_takes_its_size_from_the_inventory(house: Estate) -> None:
    copy = templates.link_copy(actor=house.dana, version_id=version_of(house).pk, machine_id=listed(house).pk)
    assert (copy.platform_id, copy.storage, copy.vcpus, copy.memory_mib, copy.disk_mib) == (
        "image-2", "default", 2, 512, 300,
    )  # fmt: skip
    assert copy.hypervisor == house.hypervisor


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"is_template": False}, "not something that can be cloned"),
        ({"template_cannot": "It has no disk."}, "no disk"),
        ({"vcpus": 0}, "how many CPUs"),
        ({"platform_id": "golden"}, "already the copy of Debian 12 v1"),
    ],
)
def test_what_cannot_serve_is_not_linked(house: Estate, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid) as refused:
        templates.link_copy(actor=house.dana, version_id=version_of(house).pk, machine_id=listed(house, **fields).pk)
    assert words in refused.value.fields["machine"]


def test_an_unknown_machine_is_told_as_such(house: Estate) -> None:
    with pytest.raises(Invalid):
        templates.link_copy(actor=house.dana, version_id=version_of(house).pk, machine_id=uuid4())
    with pytest.raises(Missing):
        templates.link_copy(actor=house.dana, version_id=uuid4(), machine_id=listed(house).pk)


@pytest.mark.parametrize("name", ["", "debian 12", "two\nlines", "x" * 300])
def test_names_are_checked(house: Estate, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        templates.create_template(actor=house.dana, name=name)
    assert list(refused.value.fields) == ["name"]


def test_a_template_may_keep_its_own_name(house: Estate) -> None:
    template = Template.objects.get()
    changed = templates.change_template(actor=house.dana, template_id=template.pk, name="Debian 12", os="Linux")
    assert changed.os == "Linux"
    assert AuditEntry.objects.get().changes == {"os": ["", "Linux"]}


def test_a_copy_in_use_is_not_removed(house: Estate) -> None:
    with pytest.raises(Clash, match="pool Office"):
        templates.remove_copy(actor=house.dana, copy_id=house.copy.pk)
    PoolMember.objects.all().delete()
    with pytest.raises(Clash, match=r"hang from it \(1\)"):
        templates.remove_template(actor=house.dana, template_id=house.copy.version.template_id)
    assert Template.objects.exists()


def test_a_template_nobody_uses_goes_with_its_copies_and_the_history_of_its_desktops(house: Estate) -> None:
    brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    Operation.objects.update(state="done")
    Desktop.objects.update(state=State.GONE)
    PoolMember.objects.all().delete()
    templates.remove_template(actor=house.dana, template_id=house.copy.version.template_id)
    assert not TemplateCopy.objects.exists()
    assert not Template.objects.exists()
    assert not Desktop.objects.exists()


def test_a_version_goes_with_its_copies(house: Estate) -> None:
    version = version_of(house)
    templates.link_copy(actor=house.dana, version_id=version.pk, machine_id=listed(house).pk)
    templates.remove_version(actor=house.dana, version_id=version.pk)
    assert TemplateCopy.objects.get() == house.copy


@pytest.mark.parametrize("person", ["alice", "bob", "charlie"])
def test_only_administrators_have_a_say(house: Estate, person: str) -> None:
    actor, version = getattr(house, person), house.copy.version
    for verb in (
        lambda: templates.create_template(actor=actor, name="x"),
        lambda: templates.change_template(actor=actor, template_id=version.template_id, name="x"),
        lambda: templates.add_version(actor=actor, template_id=version.template_id),
        lambda: templates.link_copy(actor=actor, version_id=version.pk, machine_id=uuid4()),
        lambda: templates.remove_copy(actor=actor, copy_id=house.copy.pk),
        lambda: templates.remove_version(actor=actor, version_id=version.pk),
        lambda: templates.remove_template(actor=actor, template_id=version.template_id),
    ):
        with pytest.raises(Forbidden):
            verb()


def test_a_desktop_is_never_a_template(house: Estate) -> None:
    """An adopted one bears no stamp, and once it is off it looks like something to clone from."""
    adopted = house.make(stamp_key="", machine_id="theirs", power="off")
    machine = Machine.objects.create(
        hypervisor=house.hypervisor, platform_id="theirs", name="theirs", power="off", vcpus=1, memory_mib=512,
        is_template=True, seen_at=timezone.now(),
    )  # fmt: skip
    assert machine not in template_candidates()
    with pytest.raises(Invalid) as refused:
        templates.link_copy(actor=house.dana, version_id=house.copy.version_id, machine_id=machine.pk)
    assert f"is the desktop {adopted}" in refused.value.fields["machine"]
