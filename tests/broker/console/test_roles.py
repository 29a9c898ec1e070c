"""What each role is shown, offered and refused, page by page.

Dana is the administrator; Charlie gets the role that is asked about.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from django.urls import reverse

from broker.console.frame import ROOMS
from broker.domain.permissions import RIGHTS, Right, Role
from broker.services import people
from tests.broker.console.furniture import Furniture
from tests.broker.console.pages import acts, all_pages
from tests.broker.portal.cast import Estate

As = Callable[[User], Client]
Browser = Callable[[Role], Client]
NARROWER = [role for role in Role if role is not Role.ADMINISTRATOR]


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


NEEDS: dict[Right, frozenset[str]] = {
    Right.REVIEW: names("""
        audit drift schedules templates template publication networks replication policy runs run points point
        failovers failover failover-group vaults client-files
        """),
    Right.SERVE: names("""
        desktops-change desktop-power desktop-recycle desktop-release seat-release desktop-maintenance
        desktop-forget-certificate
        operation-retry operation-cancel request-approve request-decline request-cancel requests-decide
        session-disconnect session-log-off session-notice
        """),
    Right.OPERATE: names("""
        desktop-retire desktop-forget desktop-move desktop-bring-up desktop-fail-over
        pool-add pool-edit shared-pool-edit pool-enable pool-resume pool-delete pool-terms pool-entitle pool-failover
        pool-failover-begin pool-timers member-add member-edit member-remove
        entitlement-withdraw owner-add owner-dismiss
        schedule-add schedule-edit schedule-enable schedule-delete calendar-add calendar-edit calendar-delete
        template-add template-edit template-delete version-add version-remove version-publish publication-cancel
        copy-link copy-remove network-add network-edit network-delete
        application-add application-entitle application-withdraw
        pool-scaling pool-push push-cancel push-roll-back
        hypervisor-limits hypervisor-drain hypervisor-recheck hypervisor-absence host-drain
        drift-adopt drift-forget drift-delete
        policy-add policy-watch policy-edit policy-run policy-enable policy-delete policy-choose choice-remove
        standby-anew run-cancel point-verify point-bring-up point-delete point-test
        failover-cancel failover-group-cancel
        """),
    Right.ADMINISTER: names("""
        hypervisor-kinds hypervisor-add hypervisor-edit hypervisor-remove vault-add vault-edit vault-remove
        client-files-bring client-files-anew
        user-add group-add user-groups user-role user-password user-active token-add token-revoke
        """),
}
"""What each address of the console takes; all others show what every role sees. `token-add` and the like are those of
somebody else's account here."""
LINKS = re.compile(r'(?:href|action|hx-get|hx-post)="(/console/[^"#]*)')


@pytest.fixture
def browser(house: Estate, as_: As) -> Browser:
    """The browser of somebody with that role."""

    def of(role: Role) -> Client:
        return as_(people.set_role(actor=house.dana, user_id=house.charlie.pk, role=role))

    return of


@pytest.mark.parametrize("role", NARROWER)
def test_no_page_offers_what_it_would_refuse(house: Estate, furniture: Furniture, browser: Browser, role: Role) -> None:
    """Every link, form and fragment on every page that the role may see opens for it."""
    charlie = browser(role)
    offered: dict[str, str] = {}
    for name, address in all_pages(house, furniture).items():
        answer = charlie.get(address)
        if answer.status_code == 200:
            for found in LINKS.findall(answer.content.decode()):
                offered.setdefault(unescape(found), name)
    refused = [f"{name}: {address}" for address, name in offered.items() if charlie.get(address).status_code == 403]
    assert not refused, "\n".join(refused)
    assert len(offered) > 50


def right_for(name: str) -> Right:
    return next((right for right, names in NEEDS.items() if name in names), Right.SEE)


def test_the_table_of_rights_names_addresses_that_there_are(house: Estate, furniture: Furniture) -> None:
    there = set(all_pages(house, furniture)) | set(acts(house, furniture))
    assert not frozenset().union(*NEEDS.values()) - there
    assert sum(map(len, NEEDS.values())) == len(frozenset().union(*NEEDS.values()))


@pytest.mark.parametrize("role", list(Role))
def test_each_page_opens_for_the_roles_that_have_its_right_and_for_no_other(
    house: Estate, furniture: Furniture, browser: Browser, role: Role
) -> None:
    charlie = browser(role)
    wrong = {
        name: answer.status_code
        for name, address in all_pages(house, furniture).items()
        if (answer := charlie.get(address)).status_code != (200 if right_for(name) in RIGHTS[role] else 403)
    }
    assert not wrong


@pytest.mark.parametrize("role", list(Role))
def test_each_address_takes_what_is_sent_from_the_roles_that_have_its_right_and_from_no_other(
    house: Estate, furniture: Furniture, browser: Browser, role: Role
) -> None:
    """What was done is undone before the next: each is sent to the furnished house."""
    charlie = browser(role)
    wrong = {}
    for name, address in (all_pages(house, furniture) | acts(house, furniture)).items():
        right = right_for(name)
        if right in (Right.SEE, Right.REVIEW):
            continue
        with transaction.atomic():
            status = charlie.post(address, {"asked": "1"}).status_code
            transaction.set_rollback(True)
        if (status == 403) != (right not in RIGHTS[role]):
            wrong[name] = status
    assert not wrong


def test_an_auditor_sends_nothing_anywhere(house: Estate, furniture: Furniture, browser: Browser) -> None:
    charlie = browser(Role.AUDITOR)
    for name, address in (all_pages(house, furniture) | acts(house, furniture)).items():
        answer = charlie.post(address, {"asked": "1"})
        assert answer.status_code == 403, name


@pytest.mark.parametrize(("role", "taken"), [(Role.OPERATOR, True), (Role.HELP_DESK, False), (Role.AUDITOR, False)])
def test_of_many_desktops_only_who_runs_the_estate_deletes(
    house: Estate, browser: Browser, role: Role, taken: bool
) -> None:
    """The address is one for all that is done to many; deleting is refused where the answer would do it."""
    free = house.make()
    charlie = browser(role)
    charlie.post(
        reverse("console:desktops-change"), {"desktop": [free.pk], "action": "retire", "typed_name": "1", "count": "1"}
    )
    free.refresh_from_db()
    assert (free.state == "retiring") is taken


@pytest.mark.parametrize("role", NARROWER)
def test_everybody_looks_after_their_own_account(house: Estate, browser: Browser, role: Role) -> None:
    charlie = browser(role)
    own = [house.charlie.pk]
    token, _plain = people.make_token(actor=house.charlie, user=house.charlie, name="mine")
    assert charlie.get(reverse("console:user-password", args=own)).status_code == 200
    assert (
        charlie.post(
            reverse("console:token-add", args=own), {"name": "report", "days": "30", "scopes": ["admin"]}
        ).status_code
        == 200
    )
    assert charlie.post(reverse("console:token-revoke", args=[token.pk])).status_code == 302
    page = charlie.get(reverse("console:user", args=own)).content.decode()
    assert reverse("console:token-add", args=own) in page
    assert reverse("console:user-role", args=own) not in page


@pytest.mark.parametrize("role", NARROWER)
def test_a_refusal_says_which_role_it_takes_within_the_console_and_in_a_toast(
    house: Estate, browser: Browser, role: Role
) -> None:
    charlie, address = browser(role), reverse("console:user-add")
    page = charlie.get(address)
    assert page.status_code == 403
    assert "This takes the role administrator" in page.content.decode()
    assert page.content.decode().count('id="banners"') == 1
    assert "This takes the role administrator" in charlie.get(address, headers={"HX-Request": "true"})["HX-Trigger"]


def test_the_rooms_of_the_console_are_those_that_open(house: Estate, browser: Browser) -> None:
    page = browser(Role.HELP_DESK).get(reverse("console:dashboard")).content.decode()
    shown = {room.name for room in ROOMS if f'href="{room.address}" data-key' in page}
    assert shown == {
        "dashboard", "desktops", "pools", "applications", "hypervisors", "people", "requests", "sessions", "operations",
    }  # fmt: skip


def test_search_finds_only_what_may_be_opened(house: Estate, furniture: Furniture, browser: Browser) -> None:
    address = reverse("console:search") + "?q=Debian"
    template = reverse("console:template", args=[house.copy.version.template_id])
    assert template in browser(Role.AUDITOR).get(address, headers={"HX-Request": "true"}).content.decode()
    assert template not in browser(Role.HELP_DESK).get(address, headers={"HX-Request": "true"}).content.decode()


def test_a_persons_page_says_what_their_role_may(house: Estate, browser: Browser, dana: Client) -> None:
    browser(Role.HELP_DESK)
    page = dana.get(reverse("console:user", args=[house.charlie.pk])).content.decode()
    assert page.count("May not") == len(Right) - len(RIGHTS[Role.HELP_DESK])
    assert "Help people: power" in page
