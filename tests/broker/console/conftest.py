"""The house, furnished or bare, and people at their browsers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.broker.console.furniture import Furniture, furnish
from tests.broker.portal.cast import Estate, estate


@pytest.fixture
def house(db: None) -> Estate:
    return estate()


@pytest.fixture
def furniture(house: Estate) -> Furniture:
    return furnish(house)


@pytest.fixture
def as_(house: Estate) -> Callable[[User], Client]:
    """A browser in which that person is signed in."""

    def signed_in(person: User) -> Client:
        client = Client()
        client.force_login(person)
        return client

    return signed_in


@pytest.fixture
def dana(house: Estate, as_: Callable[[User], Client]) -> Client:
    """The administrator's browser."""
    return as_(house.dana)
