"""A form that is sent twice does what it does once, and its second answer is the first one again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Barrier, Thread
from typing import TYPE_CHECKING

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from broker.models import Desktop, Submission
from tests.broker.console.conftest import as_, dana, furniture, house
from tests.broker.console.furniture import Furniture, furnish
from tests.broker.console.pages import all_pages
from tests.broker.forms.finding import TOKEN, Form, forms_of_console, forms_of_portal, forms_on, send
from tests.broker.forms.spoiling import filled
from tests.broker.gallery.test_gallery import told_of_everything
from tests.broker.portal.cast import Estate, estate

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse as Answer

__all__ = ["as_", "dana", "furniture", "house"]

LEFT_OUT = {"portal:sign-out": "ends what the second one needs", "console:patterns": "shows what forms look like"}
OF_THE_FRAME = {"submission", "session"}
"""Tables whose rows are no things of anybody's."""
TYPED: dict[str, dict[str, list[str]]] = {
    "console:pool-add": {"step": ["create"]},
    "console:pool-push": {"step": ["push"]},
    "console:pool-entitle": {"user": ["charlie"]},
    "console:owner-add": {"user": ["bob"]},
    "console:application-entitle": {"user": ["charlie"]},
    "console:session-notice": {"note": ["Please save your work."]},
    "console:requests-decide": {"asked": []},
    "console:desktops-change": {"asked": [], "action": ["maintain"]},
}
"""What somebody types or chooses who means it."""
ROWS = {"desktop", "request"}
"""Boxes of rows, of which one is chosen."""
SAYS_NO = {
    "console:client-files-bring": "what the test types is no certificate",
    **dict.fromkeys(
        ("hypervisor-add esxi", "hypervisor-add hyperv", "hypervisor-add nutanix", "hypervisor-add hypercore"),
        "nor how one signs in there",
    ),
    "console:hypervisor-edit": "its password is not typed",
    "console:vault-edit": "its place is not there",
    "console:version-publish": "it is on its way there",
    "console:hypervisor-remove": "it has desktops",
    "console:network-delete": "a pool is on it",
    "console:template-delete": "it has versions",
    "console:version-remove": "a pool builds from it",
    "console:copy-remove": "a pool builds from it",
    "console:pool-delete": "it has desktops",
    "console:vault-remove": "policies write to it",
    "console:calendar-delete": "a schedule minds it",
    "console:desktop-recycle": "somebody has it",
    "console:desktop-retire": "somebody has it",
    "console:desktop-forget": "its machine is there",
    "console:desktop-power": "it needs an action, which stands in the address",
    "console:point-delete": "it is being read",
    "console:policy-delete": "a run of it is at work",
}
"""Forms of things that cannot be done in the furnished house, by view or page."""
SHOWS = {"console:token-add", "console:vault-add"}
"""Forms that are answered with a page: the token that is shown once, the key that shall be kept first."""


@contextmanager
def _undone() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def rows() -> Counter[str]:
    """How many there are, by kind."""
    kinds = [kind for kind in apps.get_models() if kind._meta.model_name not in OF_THE_FRAME]
    return Counter({kind._meta.label: kind._default_manager.count() for kind in kinds})


def whole(form: Form) -> list[tuple[str, str]]:
    """As a browser sends it."""
    pressed = {name: [value] for name, value in form.buttons[:1]}
    chosen = {name: [one.options[0]] for name, one in form.controls.items() if name in ROWS}
    return [*form.with_(filled(form) | chosen | pressed | TYPED.get(form.name, {})), (TOKEN, form.token)]


def told(answer: Answer) -> tuple[object, ...]:
    names = ("Location", "HX-Redirect", "HX-Trigger")
    return (answer.status_code, *(answer.headers.get(name) for name in names))


def faults_of(client: Client, form: Form) -> Iterator[str]:
    before = rows()
    first = send(client, form.address, whole(form))
    once = rows()
    second = send(client, form.address, whole(form))
    more = {kind: number - once[kind] for kind, number in rows().items() if number != once[kind]}
    if more:
        yield f"{form.name}: made once {once - before}, and then {more}"
    is_done = first.status_code in (204, 302) or form.name in SHOWS
    if is_done == bool({form.name, form.page} & SAYS_NO.keys()):
        yield f"{form.name}: answered {first.status_code}"
    if form.name not in SHOWS and told(first) != told(second):
        yield f"{form.name}: answered {told(first)}, and then {told(second)}"


def all_faults(client: Client, forms: list[Form]) -> list[str]:
    found: list[str] = []
    for form in forms:
        if form.name not in LEFT_OUT:
            with _undone():
                found += faults_of(client, form)
    return found


def test_each_form_of_the_console_sent_twice_does_it_once(house: Estate, furniture: Furniture, dana: Client) -> None:
    found = all_faults(dana, forms_of_console(house, furniture, dana))
    assert not found, "\n".join(found)


def test_each_form_of_the_portal_sent_twice_does_it_once(
    house: Estate, furniture: Furniture, as_: Callable[[User], Client]
) -> None:
    told_of_everything(house)
    found = [words for person in (house.alice, house.bob) for words in _of(as_(person))]
    assert not found, "\n".join(found)


def _of(client: Client) -> list[str]:
    return all_faults(client, forms_of_portal(client))


MAKERS = {
    "template-add": "broker.Template", "version-add": "broker.TemplateVersion", "network-add": "broker.LogicalNetwork",
    "pool-add": "broker.Pool", "user-add": "auth.User", "group-add": "auth.Group", "token-add": "broker.ApiToken",
    "calendar-add": "broker.HolidayCalendar", "schedule-add": "broker.PowerSchedule",
    "policy-add": "broker.ReplicationPolicy", "application-add": "broker.Application",
    "point-bring-up": "broker.ReplicationRun", "pool-push": "broker.Push",
}  # fmt: skip
"""Page -> what its form makes."""


@pytest.mark.django_db(transaction=True)
def test_what_is_made_is_made_once_by_two_who_send_at_the_same_moment() -> None:
    """The one answer is the other's, or says that there is one of that name already."""
    house = estate()
    furniture = furnish(house)
    dana = Client()
    dana.force_login(house.dana)
    pages = all_pages(house, furniture)
    for page, kind in MAKERS.items():
        forms = forms_on(page, pages[page], dana.get(pages[page]).content)
        form = next(one for one in forms if one.name == f"console:{page}")
        before = rows()
        answers = at_once(dana, form)
        assert rows()[kind] - before[kind] == 1, (page, [answer.status_code for answer in answers])
        assert {answer.status_code for answer in answers} <= {200, 302, 422}, page
        assert page == "token-add" or told(answers[0]) == told(answers[1]), page


def at_once(browser: Client, form: Form) -> list[Answer]:
    """Sent by two threads that begin together."""
    answers: list[Answer] = []
    gate = Barrier(2)

    def press() -> None:
        client = Client()
        client.cookies = browser.cookies
        gate.wait(10)
        answers.append(send(client, form.address, whole(form)))
        connection.close()

    threads = [Thread(target=press) for _number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def test_a_form_that_was_refused_is_worked_on_again(house: Estate, dana: Client) -> None:
    address = reverse("console:group-add")
    page = dana.get(address)
    form = next(one for one in forms_on("group-add", address, page.content) if one.name == "console:group-add")
    taken = [("name", house.staff.name), (TOKEN, form.token)]
    assert send(dana, address, taken).status_code == 422
    house.staff.delete()
    assert send(dana, address, taken).status_code == 302


def test_a_button_that_stays_is_meant_again_after_a_moment(house: Estate, dana: Client) -> None:
    address = reverse("console:desktop-maintenance", args=[house.desktop.pk])
    page = reverse("console:desktop", args=[house.desktop.pk])
    form = next(one for one in forms_on("desktop", page, dana.get(page).content) if one.address == address)

    def pressed() -> bool:
        """Whether pressing it took the desktop out of service, in which it was before."""
        Desktop.objects.update(is_in_maintenance=False)
        assert send(dana, address, whole(form), headers={"HX-Request": "true"}).status_code == 204
        return Desktop.objects.get(pk=house.desktop.pk).is_in_maintenance

    assert pressed()
    assert not pressed(), "a double click"
    Submission.objects.update(until=timezone.now())
    assert pressed()


def test_what_a_second_page_sends_is_a_sending_of_its_own(house: Estate, dana: Client) -> None:
    address = reverse("console:group-add")
    for status in (302, 422):
        form = next(one for one in forms_on("", address, dana.get(address).content) if one.address == address)
        assert send(dana, address, [("name", "Painters"), (TOKEN, form.token)]).status_code == status


def test_what_the_next_page_says_is_said_to_whoever_saw_only_the_second_answer(house: Estate, dana: Client) -> None:
    address = reverse("console:pool-edit", args=[house.pool.pk])
    form = next(one for one in forms_on("", address, dana.get(address).content) if one.address == address)
    send(dana, address, whole(form))
    del dana.cookies["messages"]
    answer = send(dana, address, whole(form))
    assert "Saved." in dana.get(answer.headers["Location"]).content.decode()
