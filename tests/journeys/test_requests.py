"""A desktop for a day: asked for with a reason, approved by the pool's owner, told by mail, renewed, taken back.

The mail server is a real socket, the hosts are real libvirt hosts; only time is moved, in the rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from tests.journeys.browsers import Album, Person
from tests.journeys.scripts import Office, Script, open_office
from tests.support.kvm_hosts import KvmHost
from tests.support.smtp import MailServer, mail_server
from tests.support.stack import Stack, wait_until

pytestmark = pytest.mark.timeout(900)

TERMS = {
    "approval": "owners", "asks_why": "required", "asks_how_long": True, "lease_h": 48, "renewals": 1, "notice_h": 6,
    "grace_h": 2,
}  # fmt: skip
SHIFT = """
from datetime import timedelta
from broker.models import Assignment
for row in Assignment.objects.filter(until=None, lease_until__isnull=False):
    for name in ("since", "lease_until", "told_at", "end_told_at", "next_lease_at"):
        if at := getattr(row, name):
            setattr(row, name, at - timedelta(hours={hours}))
    row.save()
"""


@pytest.fixture(scope="module")
def post() -> Iterator[MailServer]:
    with mail_server() as running:
        yield running


@pytest.fixture(scope="module")
def surroundings(post: MailServer) -> dict[str, str]:
    return {"DESKYARD_EMAIL_URL": post.url, "DESKYARD_URL": "https://desk.example"}


@pytest.fixture(scope="module")
def office(installation: Stack, hosts: list[KvmHost]) -> Office:
    made = open_office(installation, hosts[:1], ["alice", "bob"], spare=1, maximum=3, description="For a day or two.")
    assert made.dana.ask("PATCH", f"/pools/{made.pool}", TERMS)[0] == 200
    made.dana.post(f"/pools/{made.pool}/owners", {"user": "alice"})
    for name in ("alice", "bob"):
        script = Script(installation, name)
        assert script.ask("PATCH", "/notices/preferences", {"address": f"{name}@example.org"})[0] == 200
    made.settle()
    return made


def let_time_pass(office: Office, hours: int) -> None:
    office.installation.manage("shell", "-c", SHIFT.format(hours=hours))


def test_a_desktop_is_asked_for_approved_told_of_renewed_and_taken_back(
    office: Office, post: MailServer, enter: Callable[[str], Person], album: Album
) -> None:
    bob, alice = enter("bob"), enter("alice")
    bob.sign_in("/")
    asks_with_a_reason(bob, album)
    got_mail(post, "alice@example.org", "bob asks for a desktop of Office Linux")

    alice.sign_in("/")
    alice.link(re.compile("^To approve")).click()
    alice.sees("Accounts of November")
    album.take(alice.page, "to approve", "wide", "phone", "dark")
    alice.button("Approve bob").click()
    alice.sees("The request of bob was approved.")

    tile = bob.page.locator(".portal-tile", has=bob.link(re.compile("^Open ")))
    expect(tile.locator(".chip")).to_have_text("Ready", timeout=240_000)
    expect(bob.page.locator("#bell .badge")).to_be_visible()
    got_mail(post, "bob@example.org", "Your request for Office Linux was approved")
    got_mail(post, "bob@example.org", "Your desktop of Office Linux is ready")
    name = tile.locator("p.soft").first.inner_text()
    (desktop,) = [found for found in office.desktops() if found["name"] == name]

    tile.get_by_role("link", name=re.compile("^Open ")).click()
    bob.waits_for_the_screen()
    bob.link("My desktops").click()
    the_lease_is_renewed_and_runs_out(office, post, bob, album)

    (fresh,) = [found for found in office.desktops() if found["name"] == name]
    assert fresh["epoch"] > desktop["epoch"]
    office.settle()
    office.assert_nothing_lost_or_doubled()


def asks_with_a_reason(bob: Person, album: Album) -> None:
    bob.link(re.compile("^Request desktop Office Linux")).click()
    dialog = bob.page.locator("#dialog")
    dialog.get_by_label("For how long?").select_option(label="1 day")
    dialog.get_by_role("button", name="Request desktop").click()
    bob.sees("Say in a sentence what you need it for.", at=dialog)
    expect(dialog.get_by_label("For how long?")).to_have_value("24")
    album.take(bob.page, "a reason is missing", "wide", "phone", "dark", whole=False)
    dialog.get_by_label("Why do you need it?").fill("Accounts of November")
    dialog.get_by_role("button", name="Request desktop").dblclick()
    bob.sees("Your request was sent to those who decide on it.")
    bob.sees("Waiting for approval")
    bob.closes_messages()
    album.take(bob.page, "waiting for approval", "wide", "phone")


def the_lease_is_renewed_and_runs_out(office: Office, post: MailServer, bob: Person, album: Album) -> None:
    let_time_pass(office, 20)
    got_mail(post, "bob@example.org", re.compile(r"^office-\d+ is yours until "))
    bob.sees("Its files are deleted")
    album.take(bob.page, "the lease ends soon", "wide", "phone", "dark")
    bob.button(re.compile("^Renew")).click()
    bob.sees("is yours until")
    expect(bob.button(re.compile("^Renew"))).to_have_count(0)
    bob.closes_messages()

    let_time_pass(office, 48)
    bob.sees("Its files are deleted")
    let_time_pass(office, 4)
    bob.sees("The lease is over.")
    got_mail(post, "bob@example.org", re.compile(r"^The lease of office-\d+ is over$"))
    let_time_pass(office, 4)
    got_mail(post, "bob@example.org", re.compile(r"^office-\d+ was taken back$"))
    bob.link(re.compile("^Request desktop Office Linux")).wait_for()
    bob.page.locator("#bell").click()
    bob.sees("was taken back")
    album.take(bob.page, "notices", "wide", "phone", "dark")
    bob.button("Mark all as read").click()
    expect(bob.page.locator("#bell .badge")).to_have_count(0)


def got_mail(post: MailServer, reader: str, subject: str | re.Pattern[str]) -> None:
    """One mail of that subject, and one only."""

    def found() -> list[str]:
        subjects = [str(mail["Subject"]) for mail in post.mails if mail["To"] == reader]
        return [one for one in subjects if re.search(subject, one)]

    wait_until(lambda: bool(found()), 60, f"{reader} got the mail {subject}", lambda: str(post.mails))
    assert len(found()) == 1, found()
