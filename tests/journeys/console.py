"""An administrator's ways through the console: forms filled in as a person does, nothing but pages."""

from __future__ import annotations

from collections.abc import Sequence

from playwright.sync_api import expect

from tests.journeys.browsers import PASSWORD, Person
from tests.support.kvm_hosts import KvmHost


def fill_in_hypervisor(dana: Person, name: str, host: KvmHost, **other: str) -> None:
    """The form of a KVM host reached by TLS with certificates and a SASL password; `other` replaces what is typed."""
    typed = {
        "Address": host.address,
        "User": host.tls_user,
        "Password": host.tls_user_password,
        "CA certificate": (host.client_pki / "cacert.pem").read_text(),
        "Client certificate": (host.client_pki / "clientcert.pem").read_text(),
        "Client key": (host.client_pki / "clientkey.pem").read_text(),
        "Screens listen on": "0.0.0.0",  # noqa: S104 - inside the host's own network namespace
        **other,
    }
    dana.field("Name").fill(name)
    dana.field("Transport").select_option("tls")
    for label, value in typed.items():
        dana.field(label).fill(value)


def open_hypervisor_form(dana: Person) -> None:
    dana.visit("Hypervisors")
    dana.page.locator(".page__head").get_by_role("link", name="Add a hypervisor").click()
    dana.link("KVM (libvirt)").click()


def connect(dana: Person) -> None:
    """Send the form; the page that follows shows by itself how it goes."""
    dana.button("Connect").click()
    expect(dana.page.get_by_role("heading", name="Hosts", exact=True)).to_be_visible()
    dana.mark()


def create_template_without_copy(dana: Person, name: str) -> None:
    """The page that follows asks which image is its first version."""
    dana.visit("Templates")
    dana.page.locator(".page__head").get_by_role("link", name="Create a template").click()
    dana.field("Name").fill(name)
    dana.field("Operating system").fill("Linux")
    dana.button("Create and choose an image").click()
    expect(dana.button("Link it")).to_be_visible()


def create_template(dana: Person, name: str, machine: str = "tiny") -> None:
    """A template whose first version is an image that inventory found."""
    create_template_without_copy(dana, name)
    dana.page.locator("label.choice", has_text=machine).get_by_role("radio").check()
    dana.button("Link it").click()
    expect(dana.page.get_by_role("heading", level=1, name=name)).to_be_visible()


def add_group(dana: Person, name: str) -> None:
    dana.visit("People")
    dana.link("Add a group").click()
    dana.field("Name").fill(name)
    dana.button("Add the group").click()
    dana.sees(f"The group {name} was added.")


def add_user(dana: Person, name: str, groups: Sequence[str] = ()) -> None:
    dana.visit("People")
    dana.link("Add a user").click()
    dana.field("Sign-in name").fill(name)
    dana.field("Password").fill(PASSWORD)
    for group in groups:
        dana.field(group).check()
    dana.button("Add the user").click()
    expect(dana.page.get_by_role("heading", level=1, name=name)).to_be_visible()


def fill_in_pool(dana: Person, name: str, naming: str, *, spare: int, maximum: int, **other: str) -> None:
    """The form of a new pool, building from every copy there is."""
    typed = {"Name": name, "Naming pattern": naming, "Spare": str(spare), "Maximum": str(maximum), **other}
    for label, value in typed.items():
        dana.field(label).fill(value)
    for box in dana.page.locator("input[name=copies]").all():
        box.check()


def open_pool_form(dana: Person) -> None:
    dana.visit("Pools")
    dana.page.locator(".page__head").get_by_role("link", name="Create a pool").click()


def count(dana: Person, label: str) -> int:
    """The number above a label of a pool's page, such as "assigned"."""
    tile = dana.page.locator(".count", has=dana.page.locator(".count__label", has_text=label))
    return int(tile.locator(".count__value").inner_text())


def open_desktop(dana: Person, name: str) -> None:
    dana.visit("Desktops")
    dana.page.get_by_role("link", name=name, exact=True).click()
    expect(dana.page.get_by_role("heading", level=1, name=name)).to_be_visible()


def fact(dana: Person, name: str) -> str:
    """The value beside a name in a list of facts."""
    return dana.page.locator(f"dt:text-is('{name}') + dd").first.inner_text().strip()
