"""The people and the estate of the portal's and the relay's tests.

Alice is entitled and has a desktop, Bob is entitled through the group and has none, Charlie is a stranger, Dana is the
administrator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from django.contrib.auth.models import Group, User
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import (
    Assignment,
    Desktop,
    Entitlement,
    Hypervisor,
    Pool,
    PoolMember,
    Request,
    Template,
    TemplateCopy,
    TemplateVersion,
)

PASSWORD = "a long enough password"


@dataclass
class Estate:
    hypervisor: Hypervisor
    copy: TemplateCopy
    pool: Pool
    staff: Group
    alice: User
    bob: User
    charlie: User
    dana: User
    desktop: Desktop
    """Alice's."""

    def give(self, user: User, pool: Pool | None = None, **fields: object) -> Desktop:
        """A desktop of that pool, switched on and answering, assigned to the user as a claim does it."""
        pool = pool or self.pool
        desktop = self.make(pool, **({"state": State.ASSIGNED, "epoch": 2, "clean_epoch": 1} | fields))
        now = timezone.now()
        Assignment.objects.create(pool=pool, user=user, desktop=desktop, since=now)
        Request.objects.create(
            pool=pool, user=user, desktop=desktop, state=Request.State.READY, created_at=now, served_at=now
        )
        return desktop

    def make(self, pool: Pool | None = None, **fields: object) -> Desktop:
        """A desktop that is ready and nobody's, unless the fields say otherwise."""
        pool = pool or self.pool
        values: dict[str, object] = {
            "name": f"{pool.naming.rstrip('#')}{uuid4().hex[:8]}",
            "state": State.READY,
            "state_since": timezone.now(),
            "epoch": 1,
            "clean_epoch": 1,
            "machine_id": str(uuid4()),
            "stamp_key": str(uuid4()),
            "power": "on",
            "is_answering": True,
        }
        return Desktop.objects.create(
            pool=pool,
            hypervisor=self.hypervisor,
            member=pool.members.first(),
            copy=self.copy,
            vcpus=1,
            memory_mib=512,
            **(values | fields),
        )

    def open_pool(self, name: str, **fields: object) -> Pool:
        """A pool with one member, nobody entitled yet."""
        pool = Pool.objects.create(name=name, **({"naming": f"{name.lower().replace(' ', '-')}-###"} | fields))
        PoolMember.objects.create(pool=pool, hypervisor=self.hypervisor, copy=self.copy)
        return pool


def squeezed(html: bytes) -> str:
    """The page without the white space round its tags: how a template is laid out is its own business."""
    return re.sub(r"\s*(<[^>]*>)\s*", r"\1", html.decode())


def estate() -> Estate:
    """One hypervisor that is up, one pool, four people; Alice has a desktop."""
    hypervisor = Hypervisor.objects.create(
        name="kvm-01", kind="kvm", status=Hypervisor.Status.UP, status_since=timezone.now() - timedelta(hours=1)
    )
    version = TemplateVersion.objects.create(template=Template.objects.create(name="Debian 12"), number=1)
    copy = TemplateCopy.objects.create(
        version=version, hypervisor=hypervisor, platform_id="golden", name="golden", vcpus=1, memory_mib=512
    )
    for name in ("alice", "bob", "charlie", "dana"):
        User.objects.create_user(name, password=PASSWORD, is_staff=name == "dana")
    # With their roles, as an account is loaded that signed in.
    people = {user.get_username(): user for user in User.objects.select_related("staff_role")}
    staff = Group.objects.create(name="Office staff")
    people["bob"].groups.add(staff)
    made = Estate(hypervisor=hypervisor, copy=copy, pool=Pool(), staff=staff, desktop=Desktop(), **people)
    made.pool = made.open_pool("Office", description="Word processing and mail")
    Entitlement.objects.create(pool=made.pool, user=made.alice)
    Entitlement.objects.create(pool=made.pool, group=staff)
    made.desktop = made.give(made.alice, name="office-001")
    return made
