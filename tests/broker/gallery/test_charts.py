"""Charts as a browser draws them, and what they say in words."""

from __future__ import annotations

from datetime import timedelta

from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page, expect

from broker.models import Sample
from tests.broker.console.furniture import Furniture
from tests.broker.gallery.looking import SCREENS, Enter
from tests.broker.portal.cast import Estate
from tests.support.stack import wait_until


def day(house: Estate) -> None:
    """A day of the estate, with a peak of twelve at noon."""
    now = timezone.now()
    for hypervisor in (None, house.hypervisor):
        Sample.objects.bulk_create(
            Sample(
                at=now - timedelta(minutes=5 * number), hypervisor=hypervisor, assigned=5 + abs(12 - number % 24) // 2,
                in_use=min(12, abs(144 - number) // 9), ready=4, broken=number % 50 == 0, vcpus=64,
                taken_vcpus=10 + number // 8, memory_mib=1 << 18, taken_memory_mib=(1 << 16) + number * 300,
                storage_mib=1 << 22, taken_storage_mib=1 << 20,
            )
            for number in range(280)
        )  # fmt: skip


def drawn(page: Page, chart: str) -> int:
    """How many pixels of its canvas are not empty."""
    count: int = page.evaluate(
        """name => {
            const canvas = document.querySelector(`[aria-labelledby=chart-${name}] canvas`);
            if (!canvas) return 0;
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            return data.filter((value, at) => at % 4 === 3 && value > 0).length;
        }""",
        chart,
    )
    return count


def require_drawn(page: Page, chart: str) -> None:
    """Each comes by itself once its figures are there."""
    wait_until(lambda: drawn(page, chart) > 2000, 60, f"the chart {chart} is drawn")


def test_charts_are_drawn_and_told_in_words(live_house: Estate, furniture: Furniture, enter: Enter) -> None:
    day(live_house)
    for theme in ("light", "dark"):
        dana = enter(live_house.dana, theme)
        page = dana.page
        for name, address in (
            ("dashboard", reverse("console:dashboard")),
            ("hypervisor", reverse("console:hypervisor", args=[live_house.hypervisor.pk])),
        ):
            page.goto(address)
            legend = page.locator("[aria-labelledby=chart-desktops] [data-chart-legend]")
            expect(legend).to_contain_text("In use: now 12, at most 12")
            for chart in ("desktops", "capacity"):
                require_drawn(page, chart)
            page.screenshot(path=SCREENS / f"console-{name}-charts-{theme}.png", full_page=True)
        assert not dana.complaints


def test_a_span_without_figures_says_so_and_another_one_is_asked(
    live_house: Estate, furniture: Furniture, enter: Enter
) -> None:
    Sample.objects.create(at=timezone.now() - timedelta(days=3), ready=7)
    page = enter(live_house.dana, "light").page
    page.goto(reverse("console:dashboard"))
    chart = page.get_by_role("region", name="Desktops over time")
    expect(chart).to_contain_text("Nothing was measured in this span yet.")
    chart.get_by_label("Span").select_option("7 days")
    expect(chart).to_contain_text("Ready: now 7, at most 7")
