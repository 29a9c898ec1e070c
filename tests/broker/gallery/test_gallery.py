"""Every page in a real browser, in both themes, wide and on a phone: axe finds nothing, scripts do not complain.

The pictures are kept in `var/screens/pages/`, to be looked at.
"""

from __future__ import annotations

import pytest
from django.urls import reverse
from django.utils import timezone

from broker.domain.notices import Kind
from broker.domain.permissions import Role
from broker.models import Favourite, Pool, PoolOwner, Preferences, Request
from broker.services import notices, people, pools
from tests.broker.console.furniture import Furniture
from tests.broker.console.pages import LISTS, all_pages
from tests.broker.gallery.looking import Enter, Theme
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.parametrize("theme", ["light", "dark"])


def test_the_console(live_house: Estate, furniture: Furniture, enter: Enter, theme: Theme) -> None:
    dana = enter(live_house.dana, theme)
    pages = all_pages(live_house, furniture)
    # Parts of the frame, not pages.
    del pages["pulse"], pages["tasks"]
    for name, address in pages.items():
        dana.look_at("console", name, address)
    assert not dana.complaints, "\n".join(dana.complaints)


SEEN_BY_ROLE = {
    Role.HELP_DESK: (
        "dashboard", "desktops", "desktop", "pools", "pool", "requests", "operations", "operation", "people", "user",
        "hypervisors", "hypervisor",
    ),
    Role.AUDITOR: (
        "dashboard", "desktops", "desktop", "pool", "requests", "user", "audit", "template", "schedules", "networks",
        "policy", "point", "vaults", "drift",
    ),
}  # fmt: skip


@pytest.mark.parametrize("role", SEEN_BY_ROLE)
def test_the_console_of_those_who_may_less(
    live_house: Estate, furniture: Furniture, enter: Enter, theme: Theme, role: Role
) -> None:
    """Where buttons are left out the page still stands."""
    charlie = enter(people.set_role(actor=live_house.dana, user_id=live_house.charlie.pk, role=role), theme)
    pages = all_pages(live_house, furniture)
    for name in SEEN_BY_ROLE[role]:
        charlie.look_at("console", f"{name}-{role.value.replace('_', '-')}", pages[name])
    own = reverse("console:user", args=[live_house.charlie.pk])
    charlie.look_at("console", f"user-own-{role.value.replace('_', '-')}", own)
    assert not charlie.complaints, "\n".join(charlie.complaints)


def test_the_console_of_a_bare_house(live_house: Estate, enter: Enter, theme: Theme) -> None:
    """Empty states are pages too."""
    dana = enter(live_house.dana, theme)
    for name in ("dashboard", *LISTS):
        if name not in ("people", "hypervisors", "templates", "pools"):
            dana.look_at("console", f"{name}-empty", f"{reverse(f'console:{name}')}?q=nothing-is-called-that")
    assert not dana.complaints, "\n".join(dana.complaints)


def test_the_portal(live_house: Estate, furniture: Furniture, enter: Enter, theme: Theme) -> None:
    stranger, alice, charlie = enter(None, theme), enter(live_house.alice, theme), enter(live_house.charlie, theme)
    stranger.look_at("portal", "sign-in", reverse("portal:sign-in"))
    told_of_everything(live_house)
    alice.look_at("portal", "home", reverse("portal:home"))
    for name in ("approvals", "notices", "screens", "choices-of-mine"):
        alice.look_at("portal", name, reverse(f"portal:{name}"))
    bob = enter(live_house.bob, theme)
    bob.look_at("portal", "ask", reverse("portal:ask", args=[live_house.pool.pk]))
    bob.look_at("portal", "notices-empty", reverse("portal:notices"))
    bob.look_at("portal", "screens-empty", reverse("portal:screens"))
    alice.look_at("portal", "release", reverse("portal:release", args=[live_house.desktop.pk]))
    charlie.look_at("portal", "home-empty", reverse("portal:home"))
    complaints = [*stranger.complaints, *alice.complaints, *bob.complaints, *charlie.complaints]
    assert not complaints, "\n".join(complaints)


def told_of_everything(house: Estate) -> None:
    """Alice looks after the pool, has a screen open elsewhere, and has been told one thing of each kind."""
    PoolOwner.objects.create(pool=house.pool, user=house.alice)
    Request.objects.filter(user=house.bob, pool=house.pool).delete()
    asked = {"pool": house.pool, "user": house.dana, "why": "Accounts of November.", "asked_h": 72}
    Request.objects.create(state=Request.State.WAITING, created_at=timezone.now(), **asked)
    Favourite.objects.create(user=house.alice, pool=house.pool)
    now = timezone.now()
    house.desktop.sessions.create(
        user=house.alice, epoch=house.desktop.epoch, protocol="vnc", started_at=now, seen_at=now, address="10.0.0.7"
    )
    facts = {
        "pool": "Office", "desktop": "office-001", "user": "bob", "until": "Fri 27 Nov 2026, 14:00 UTC",
        "gone": "Sat 28 Nov 2026, 14:00 UTC", "words": "As somebody wrote it.", "may_renew": True, "at": "14:00 UTC",
        "version": "Debian 12 v2",
    }  # fmt: skip
    for kind in Kind:
        notices.tell([house.alice.pk], kind, now=timezone.now(), pool_id=house.pool.pk, facts=facts)


def test_a_desktop_in_a_program_of_ones_own(live_house: Estate, enter: Enter, theme: Theme) -> None:
    """Its file on the main button, the other way in the menu, and by whom files are signed."""
    fields = {"protocol": Pool.Protocol.RDP, "native_clients": True}
    pools.change_pool(actor=live_house.dana, pool_id=live_house.pool.pk, **fields)  # type: ignore[arg-type]
    Preferences.objects.create(user=live_house.alice, opens_natively=True)
    alice, dana = enter(live_house.alice, theme), enter(live_house.dana, theme)
    alice.look_at("portal", "home-native", reverse("portal:home"))
    alice.look_at("portal", "choices-native", reverse("portal:choices-of-mine"))
    for name in ("client-files", "client-files-bring", "client-files-anew"):
        dana.look_at("console", name, reverse(f"console:{name}"))
    dana.look_at("console", "pool-edit-native", reverse("console:pool-edit", args=[live_house.pool.pk]))
    account = {"native_clients": False, "guest_account": "local", "guest_user": "desk"}
    Pool.objects.filter(pk=live_house.pool.pk).update(**account)
    dana.look_at("console", "pool-edit-local", reverse("console:pool-edit", args=[live_house.pool.pk]))
    dana.look_at("console", "pool-local", reverse("console:pool", args=[live_house.pool.pk]))
    assert not alice.complaints + dana.complaints, "\n".join(alice.complaints + dana.complaints)
