"""Whole journeys by Tab, Enter, Space, Escape and the arrows: nobody needs a pointer, in the portal or the console."""

from __future__ import annotations

import re

from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Page, expect

from broker.models import (
    Assignment,
    Entitlement,
    Favourite,
    Hypervisor,
    Notice,
    Operation,
    Pool,
    Push,
    ReplicationChoice,
    ReplicationPolicy,
    Request,
    TemplateCopy,
)
from tests.broker.console.furniture import Furniture
from tests.broker.gallery.looking import Enter
from tests.broker.gallery.test_gallery import told_of_everything
from tests.broker.portal.cast import Estate

STOPS = 120
NAMED = """() => {
  const stop = document.activeElement;
  if (!stop.matches("a, button, input, select, textarea, summary")) return "";
  const label = stop.labels?.[0]?.innerText ?? "";
  return [stop.ariaLabel ?? "", label, stop.tagName === "SELECT" ? "" : stop.textContent, stop.value ?? ""].join(" ");
}"""


class Keys:
    """Somebody at a page, with a keyboard and nothing else."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def go(self, view: str, *arguments: object) -> None:
        self.page.goto(reverse(view, args=arguments))

    def to(self, name: str) -> Keys:
        """Tab until something of that name has the focus."""
        for _stop in range(STOPS):
            self.page.keyboard.press("Tab")
            if re.search(name, " ".join(self.page.evaluate(NAMED).split())):
                return self
        raise AssertionError(f"Tab does not lead to {name}")

    def press(self, *keys: str) -> Keys:
        for key in keys:
            self.page.keyboard.press(key)
        return self

    def type(self, text: str) -> Keys:
        """Instead of what is there."""
        self.press("Control+a", "Delete")
        self.page.keyboard.type(text)
        return self

    def focused(self, name: str) -> None:
        """The focus is there, and not on something round it."""
        expect(self.page.locator("a:focus, button:focus")).to_contain_text(name)


def at(enter: Enter, person: User) -> Keys:
    return Keys(enter(person, "light").page)


def test_the_portal(live_house: Estate, furniture: Furniture, enter: Enter) -> None:
    told_of_everything(live_house)
    Pool.objects.filter(pk=live_house.pool.pk).update(asks_why=Pool.Asks.REQUIRED)
    for number in range(9):
        pool = live_house.open_pool(f"Studio {number}")
        Entitlement.objects.create(pool=pool, user=live_house.bob)
    bob = at(enter, live_house.bob)
    page = bob.page
    bob.go("portal:home")
    bob.to("^Search").type("studio 7")
    expect(page.get_by_role("article")).to_have_count(1)
    bob.type("").to("Request desktop Office").press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("textbox")).to_be_focused()
    bob.type("Accounts").to("^ ?Request desktop").press("Enter")
    expect(dialog).to_be_hidden()
    assert Request.objects.get(user=live_house.bob, pool=live_house.pool).why == "Accounts"
    bob.to("Studio 3 is a favourite").press("Enter")
    studio = Pool.objects.get(name="Studio 3")
    expect(page.locator(f"#favourite-{studio.pk}")).to_have_attribute("aria-pressed", "true")
    assert Favourite.objects.filter(user=live_house.bob, pool=studio).exists()


def test_what_an_owner_of_a_desktop_and_of_a_pool_does(live_house: Estate, furniture: Furniture, enter: Enter) -> None:
    told_of_everything(live_house)
    wish = Request.objects.get(user=live_house.dana, pool=live_house.pool)
    alice = at(enter, live_house.alice)
    page = alice.page
    alice.go("portal:home")
    alice.to("^ ?To approve").press("Enter")
    expect(page).to_have_url(re.compile("/approvals/$"))
    alice.to("Decline dana").press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    alice.press("Escape").focused("Decline dana")
    alice.press("Shift+Tab", "Enter")
    expect(page.locator(".toast")).to_contain_text("was approved")
    wish.refresh_from_db()
    assert wish.state != Request.State.WAITING
    alice.to("Notices").press("Enter")
    expect(page).to_have_url(re.compile("/notices/$"))
    alice.to("Mark all as read").press("Enter")
    expect(page.locator(".toast")).to_contain_text("marked as read")
    assert not Notice.objects.filter(user=live_house.alice, read_at=None).exists()
    alice.go("portal:home")
    opens = page.locator(f"#open-{live_house.desktop.pk}").text_content() or ""
    alice.to(" ".join(opens.split())).press("Enter")
    expect(page).to_have_url(re.compile("/open/$"))
    alice.go("portal:home")
    alice.to("^ ?Power and release").press("Enter").to("^ ?Release").press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    alice.to("Release and delete my files").press("Enter")
    expect(page.locator(".toast")).to_contain_text("was released")
    assert not Assignment.objects.filter(desktop=live_house.desktop, until=None).exists()


def test_a_hypervisor_a_template_and_a_pool_are_set_up(live_house: Estate, furniture: Furniture, enter: Enter) -> None:
    dana = at(enter, live_house.dana)
    page = dana.page
    dana.go("console:hypervisor-kinds")
    dana.to("Instant").press("Enter")
    expect(page).to_have_url(re.compile("/add/instant/$"))
    dana.to("^Name").type("Barn").to("^ ?Connect").press("Enter")
    expect(page).to_have_url(re.compile("/hypervisors/[0-9a-f-]+/$"))
    assert Hypervisor.objects.filter(name="Barn").exists()
    dana.go("console:template-add")
    dana.to("^Name").type("Drawing").press("Enter")
    expect(page).to_have_url(re.compile("/link/$"))
    dana.to(furniture.image.name).press("Space").to("^ ?Link it").press("Enter")
    expect(page).to_have_url(re.compile("/templates/[0-9a-f-]+/$"))
    assert TemplateCopy.objects.filter(platform_id=furniture.image.platform_id).exists()
    dana.go("console:pool-add")
    dana.to("^Name").type("Reading room").to("^Naming").type("read-###")
    dana.to("Debian 12.* on kvm-01").press("Space").to("^ ?Review").press("Enter")
    expect(page.get_by_role("button", name="Create the pool")).to_be_visible()
    dana.to("Create the pool").press("Enter")
    expect(page.get_by_role("heading", name="Reading room", level=1)).to_be_visible()
    assert Pool.objects.get(name="Reading room").members.count() == 1


def test_a_policy_and_a_push_are_made_and_many_desktops_are_changed(
    live_house: Estate, furniture: Furniture, enter: Enter
) -> None:
    dana = at(enter, live_house.dana)
    page = dana.page
    dana.go("console:policy-add")
    dana.to("^Name").type("Nightly").to("Every so often").press("ArrowDown").to("^Set times").type("0 3 * * *")
    dana.to("^ ?Go on to the machines").press("Enter")
    expect(page).to_have_url(re.compile("/machines/$"))
    made = ReplicationPolicy.objects.get(name="Nightly")
    assert made.cron == "0 3 * * *"
    dana.to("^All on this page").press("Tab", "Space").to("^ ?Add them").press("Enter")
    expect(page.locator(".toast")).to_contain_text("added to Nightly")
    assert ReplicationChoice.objects.filter(policy=made).count() == 1
    dana.go("console:pool-push", live_house.pool.pk)
    dana.to(f"{furniture.new_version}").press("Space").to("^ ?Review").press("Enter")
    expect(page.get_by_role("button", name="Push it now")).to_be_visible()
    dana.to("^ ?Push it now").press("Enter")
    expect(page).to_have_url(re.compile("/pools/[0-9a-f-]+/$"))
    assert Push.objects.filter(pool=live_house.pool, version=furniture.new_version).exists()
    dana.go("console:desktops")
    box = page.get_by_role("checkbox", name="Choose office-002")
    dana.to("^Choose office-002").press("Space")
    expect(box).to_be_checked()
    dana.to("^ ?Take out of service").press("Enter")
    dialog = page.locator("#dialog")
    expect(dialog).to_contain_text("Take 1 desktop out of service?")
    dana.press("Escape").focused("Take out of service")
    expect(box).to_be_checked()
    dana.press("Enter")
    expect(dialog).to_be_visible()
    dana.to("^ ?Take out of service").press("Enter")
    expect(page.locator(".toast").first).to_contain_text("1 desktop is in maintenance.")
    Operation.objects.filter(pk=furniture.failed.pk).update(kind="power", parameters={"action": "on"})
    dana.press("t")
    drawer = page.get_by_role("complementary", name="Tasks")
    expect(drawer.get_by_role("listitem").first).to_be_visible()
    dana.to("^ ?Retry").press("Enter")
    expect(page).to_have_url(re.compile("/console/operations/[0-9a-f-]+/$"))
