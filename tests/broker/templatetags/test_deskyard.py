"""Words and figures as people read them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.template import Context, Template
from django.test import RequestFactory
from django.utils import timezone

from broker.domain.labels import Label, Tone
from broker.templatetags import deskyard


@pytest.mark.parametrize(
    ("mib", "words"),
    [(0, "0 MiB"), (512, "512 MiB"), (2048, "2 GiB"), (1536, "1.5 GiB"), (410 * 1024, "410 GiB"), (None, "–")],
)
def test_sizes_have_the_unit_that_reads_best(mib: int | None, words: str) -> None:
    assert deskyard.mib(mib) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "just now"), (30, "30 s ago"), (90, "1 min ago"), (7300, "2 h ago"), (3 * 86_400, "3 days ago"),
        (-600, "in 9 min"),
    ],
)  # fmt: skip
def test_moments_are_told_by_their_age(seconds: int, words: str) -> None:
    told = deskyard.ago(timezone.now() - timedelta(seconds=seconds))
    assert f">{words}</time>" in told
    assert "<time data-age datetime=" in told


def test_what_never_happened_says_so() -> None:
    assert deskyard.ago(None) == "never"
    assert deskyard.lasted(None, None) == "–"


@pytest.mark.parametrize(("seconds", "words"), [(2.3, "2.3 s"), (42, "42 s"), (130, "2 min 10 s"), (7300, "2 h 1 min")])
def test_spans_are_told_in_two_units_at_most(seconds: float, words: str) -> None:
    now = timezone.now()
    assert deskyard.lasted(now - timedelta(seconds=seconds), now) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 B"), (1023, "1023 B"), (2048, "2 KiB"), (1 << 20, "1 MiB"), (70_464_307.2, "67.2 MiB"),
        (80 << 30, "80 GiB"), (None, "–"),
    ],
)  # fmt: skip
def test_bytes_have_the_unit_that_reads_best(number: float | None, words: str) -> None:
    assert deskyard.size(number) == words


def test_long_spans_leave_out_what_nobody_needs() -> None:
    now = timezone.now()
    assert deskyard.spanned(now - timedelta(hours=5, seconds=12), now) == "5 h"
    assert (deskyard.span(95.4), deskyard.span(None), deskyard.spanned(None, now)) == ("1 min 35 s", "–", "–")


def test_how_old_a_point_is_stands_beside_what_was_promised() -> None:
    lag = Template('{% include "components/lag.html" %}')
    moment = timezone.now() - timedelta(minutes=90)
    shown = lag.render(Context({"moment": moment, "age_s": 5400.0, "rpo_s": 3600, "tone": "bad"}))
    assert 'aria-label="1 h 30 min old, of at most 1 h"' in shown
    assert 'width="100.00"' in shown
    assert "<svg" not in lag.render(Context({"moment": None, "age_s": None, "rpo_s": 3600, "tone": "busy"}))


def test_shares_stay_between_nothing_and_all() -> None:
    assert [deskyard.share(part, 10) for part in (-1, 5, 20)] == [0, 50, 100]
    assert deskyard.share(5, 0) == 0


def test_initials_are_two_letters_at_most() -> None:
    assert [deskyard.initials(name) for name in ("ada.lovelace", "bob", "", "--")] == ["AL", "B", "?", "?"]


def test_a_chip_has_icon_word_and_tone_and_no_markup_of_the_text() -> None:
    shown = Template("{% chip label %}").render(Context({"label": Label("<b>Up</b>", Tone.GOOD, "check")}))
    assert "tone-good" in shown
    assert "icons.svg#check" in shown
    assert "&lt;b&gt;Up&lt;/b&gt;" in shown


@pytest.mark.parametrize(("cookie", "theme"), [("dark", "dark"), ("light", "light"), ('"><script>', ""), ("", "")])
def test_only_known_themes_are_taken_from_the_cookie(cookie: str, theme: str) -> None:
    request = RequestFactory().get("/")
    request.COOKIES[deskyard.THEME_COOKIE] = cookie
    assert Template("{% theme %}").render(Context({"request": request})) == theme


@pytest.mark.parametrize(("level", "tone"), [("error", "bad"), ("warning", "attention"), ("info", "busy")])
def test_levels_have_tones(level: str, tone: str) -> None:
    assert deskyard.level_tone(level) == tone
