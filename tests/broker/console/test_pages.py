"""Every page, furnished and bare, and who may come in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.broker.console.furniture import Furniture
from tests.broker.console.pages import LISTS, PLAIN, all_pages
from tests.broker.portal.cast import Estate

As = Callable[[User], Client]


def test_the_administrator_sees_every_page(house: Estate, furniture: Furniture, dana: Client) -> None:
    wrong = {
        name: answer.status_code
        for name, address in all_pages(house, furniture).items()
        if (answer := dana.get(address)).status_code != 200
    }
    assert not wrong
