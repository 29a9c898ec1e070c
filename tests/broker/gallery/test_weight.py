"""What a page weighs on the wire, with everything that it needs, for somebody who comes for the first time."""

from __future__ import annotations

import gzip
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from django.urls import reverse

from tests.broker.console.furniture import Furniture
from tests.broker.console.pages import LISTS, all_pages
from tests.broker.gallery.looking import Enter
from tests.broker.portal.cast import Estate
from tests.broker.relay.serving import Web

AT_MOST = 150_000


def test_no_page_weighs_more_than_150_kb(live_house: Estate, furniture: Furniture, enter: Enter) -> None:
    """With fifty rows on a list, as many as a page shows."""
    for number in range(60):
        live_house.make(name=f"many-{number:02}")
    dana = enter(live_house.dana, "light")
    wire = dana.page.context.new_cdp_session(dana.page)
    wire.send("Network.enable")
    wire.send("Network.setCacheDisabled", {"cacheDisabled": True})
    weights: list[float] = []
    wire.on("Network.loadingFinished", lambda event: weights.append(event["encodedDataLength"]))
    pages = all_pages(live_house, furniture)
    heavy: dict[str, float] = {}
    for name in (*LISTS, "hypervisor", "pool", "desktop", "policy", "pool-add", "patterns"):
        weights.clear()
        dana.page.goto(pages[name], wait_until="load")
        heavy[name] = sum(weights)
    weights.clear()
    dana.page.goto(reverse("portal:home"), wait_until="load")
    heavy["the portal"] = sum(weights)
    assert min(heavy.values()) > 20_000, "something was measured"
    assert not {name: weight for name, weight in heavy.items() if weight > AT_MOST}, heavy


@pytest.mark.parametrize("encodings", ["gzip, br", "identity"])
@pytest.mark.parametrize("address", ["/static/css/components.css", "/sign-in/"])
def test_what_is_text_is_compressed_for_those_who_take_it(web: Web, db: None, address: str, encodings: str) -> None:
    connection = HTTPConnection(urlsplit(web.origin).netloc, timeout=10)
    connection.request("GET", address, headers={"Accept-Encoding": encodings})
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200
    assert "Accept-Encoding" in (answer.headers["Vary"] or "")
    if encodings == "identity":
        assert answer.headers["Content-Encoding"] is None
    else:
        assert answer.headers["Content-Encoding"] == "gzip"
        body = gzip.decompress(body)
    assert b"{" in body
    connection.close()


def test_a_browser_that_has_a_file_is_not_sent_it_again(web: Web) -> None:
    connection = HTTPConnection(urlsplit(web.origin).netloc, timeout=10)
    connection.request("GET", "/static/css/components.css", headers={"Accept-Encoding": "gzip"})
    first = connection.getresponse()
    first.read()
    headers = {"Accept-Encoding": "gzip", "If-None-Match": first.headers["ETag"] or ""}
    connection.request("GET", "/static/css/components.css", headers=headers)
    again = connection.getresponse()
    assert (again.status, again.read()) == (304, b"")
    connection.close()
