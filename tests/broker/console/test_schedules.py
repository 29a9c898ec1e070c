"""Power schedules and calendars in the console: what the pages say, what the forms take and refuse."""

from __future__ import annotations

from datetime import date, time
from typing import Any

import pytest
from django.test import Client

from broker.models import HolidayCalendar, Operation, PowerSchedule
from broker.services import schedules
from tests.broker.console.furniture import Furniture
from tests.broker.console.test_acts import HTMX, at, events_of, text_of
from tests.broker.portal.cast import Estate

FORM = {
    "name": "Weekday mornings", "does": "share", "amount": "80", "at": "08:30", "zone": "Europe/Berlin",
    "weekdays": ["1", "2", "3", "4", "5"], "calendar": "",
}  # fmt: skip


def test_a_schedule_is_added_from_the_pools_page(house: Estate, dana: Client) -> None:
    page = text_of(dana.get(at("pool", house.pool.pk)))
    assert "Never by itself: power stays as people leave it." in page
    assert at("schedule-add", house.pool.pk) in page
    answer = dana.post(at("schedule-add", house.pool.pk), FORM, follow=True)
    assert answer.redirect_chain == [(at("pool", house.pool.pk), 302)]
    made = PowerSchedule.objects.get()
    assert (made.action, made.reach, made.amount, made.weekdays) == ("on", "share", 80, "12345")
    assert (made.at, made.zone, made.calendar) == (time(8, 30), "Europe/Berlin", None)
    page = text_of(answer)
    assert "Weekday mornings is set." in page
    assert "Switches on until 80 % are on" in page
    assert "Monday to Friday at 08:30" in page
    assert 'data-zone="Europe/Berlin"' in page


def test_shutting_down_has_no_amount(house: Estate, dana: Client) -> None:
    dana.post(at("schedule-add", house.pool.pk), FORM | {"does": "off"})
    made = PowerSchedule.objects.get()
    assert (made.action, made.reach, made.amount) == ("off", "all", None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "This field is required."),
        ({"does": "explode"}, "Select a valid choice."),
        ({"amount": ""}, "Say how many."),
        ({"amount": "101"}, "A whole number from 1 to 100."),
        ({"at": "25:00"}, "A time of day such as 08:30."),
        ({"zone": "Mars/Olympus"}, "Select a valid choice."),
        ({"weekdays": []}, "Choose at least one day."),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_what_was_typed_stays(
    house: Estate, dana: Client, fields: dict[str, Any], words: str
) -> None:
    answer = dana.post(at("schedule-add", house.pool.pk), FORM | fields)
    assert answer.status_code == 422
    assert words in text_of(answer)
    assert "08:30" in text_of(answer) or "at" in fields
    assert not PowerSchedule.objects.exists()


def test_a_name_that_the_pool_has_already_is_refused_at_the_name(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    answer = dana.post(at("schedule-add", house.pool.pk), FORM)
    assert answer.status_code == 422
    assert "This pool already has a schedule of that name." in text_of(answer)


def test_a_schedule_is_changed_and_its_form_shows_what_stands(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    address = at("schedule-edit", furniture.schedule.pk)
    page = text_of(dana.get(address))
    assert 'value="08:30"' in page
    assert '<option value="Europe/Berlin" selected>Berlin</option>' in page
    assert "data-own-zone" not in page, "only a new one begins with the reader's zone"
    dana.post(address, FORM | {"at": "07:15", "weekdays": ["6", "7"]})
    furniture.schedule.refresh_from_db()
    assert (furniture.schedule.at, furniture.schedule.weekdays) == (time(7, 15), "67")


def test_a_schedule_is_paused_and_resumed(house: Estate, furniture: Furniture, dana: Client) -> None:
    address = at("schedule-enable", furniture.schedule.pk)
    answer = dana.post(address, {"on": "0"}, headers=HTMX)
    assert "is paused: it does not run until you resume it." in events_of(answer)["toast"]["text"]
    assert text_of(dana.get(at("pool", house.pool.pk))).count("Paused") == 2
    dana.post(address, {"on": "1"}, headers=HTMX)
    furniture.schedule.refresh_from_db()
    assert furniture.schedule.next_run_at is not None


def test_a_schedule_is_deleted_after_a_question(house: Estate, furniture: Furniture, dana: Client) -> None:
    address = at("schedule-delete", furniture.schedule.pk)
    assert "Delete the schedule Weekday mornings?" in text_of(dana.get(address))
    dana.post(address)
    assert not PowerSchedule.objects.filter(pk=furniture.schedule.pk).exists()


def test_all_schedules_stand_on_one_page_the_next_first_and_paused_ones_last(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    schedules.create_schedule(
        actor=house.dana, pool_id=furniture.held_pool.pk, name="Far away", action="off", at=time(22), weekdays="1",
        zone="UTC",
    )  # fmt: skip
    PowerSchedule.objects.filter(name="Far away").update(next_run_at="2090-01-01T00:00Z")
    page = text_of(dana.get(at("schedules")))
    places = [page.index(f"<b>{name}</b>") for name in ("Weekday mornings", "Far away", "Evenings")]
    assert places == sorted(places)
    assert "Public holidays in Berlin" in page
    assert "A feast" in page


def test_a_calendar_that_ran_out_of_days_is_pointed_out(house: Estate, furniture: Furniture, dana: Client) -> None:
    assert "No day left" not in text_of(dana.get(at("schedules"))), "nothing respects last year's"
    furniture.calendar.days.update(day="2020-01-01")
    assert "No day left" in text_of(dana.get(at("schedules")))


def test_a_calendar_is_typed_a_day_a_line(house: Estate, dana: Client) -> None:
    days = "2026-12-25 Christmas Day\n\n 2026-12-26\n"
    answer = dana.post(at("calendar-add"), {"name": "Berlin", "days": days}, follow=True)
    assert answer.redirect_chain == [(at("schedules"), 302)]
    calendar = HolidayCalendar.objects.get()
    assert dict(calendar.days.values_list("day", "name")) == {
        date(2026, 12, 25): "Christmas Day",
        date(2026, 12, 26): "",
    }
    page = dana.get(at("calendar-edit", calendar.pk)).content.decode()
    assert "2026-12-25 Christmas Day\n2026-12-26</textarea>" in page
    dana.post(at("calendar-edit", calendar.pk), {"name": "Berlin", "days": "2027-01-01"})
    assert [str(day) for day in calendar.days.all()] == ["2027-01-01"]


@pytest.mark.parametrize(
    ("days", "words"),
    [
        ("2026-12-25\n25.12.2026", "Line 2: 25.12.2026 is no date. Write the year first: 2026-12-25."),
        ("2026-12-25\n2026-12-25 again", "Line 2: 2026-12-25 stands there twice."),
        ("1900-01-01", "Years from 2000 to 2100; not 1900-01-01."),
    ],
)
def test_a_day_that_is_none_is_named_by_its_line(house: Estate, dana: Client, days: str, words: str) -> None:
    answer = dana.post(at("calendar-add"), {"name": "Berlin", "days": days})
    assert answer.status_code == 422
    assert words in text_of(answer)
    assert not HolidayCalendar.objects.exists()


def test_a_calendar_in_use_is_not_deleted_and_the_dialog_says_by_what(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    PowerSchedule.objects.filter(pk=furniture.schedule.pk).update(calendar=furniture.calendar)
    answer = dana.post(at("calendar-delete", furniture.calendar.pk), headers=HTMX)
    assert answer.status_code == 422
    assert "is respected by Weekday mornings" in text_of(answer)


def test_an_operation_says_which_schedule_made_it(house: Estate, furniture: Furniture, dana: Client) -> None:
    Operation.objects.filter(pk=furniture.running.pk).update(cause="by the schedule Weekday mornings")
    for page in (at("operations"), at("operation", furniture.running.pk)):
        assert "by the schedule Weekday mornings" in text_of(dana.get(page))
