"""The people of the portal's tests at their browsers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.broker.portal.cast import Estate, estate


@pytest.fixture
def house(db: None) -> Estate:
    return estate()


@pytest.fixture
def as_(house: Estate) -> Callable[[User], Client]:
    """A browser in which that person is signed in."""

    def signed_in(person: User) -> Client:
        client = Client()
        client.force_login(person)
        return client

    return signed_in
