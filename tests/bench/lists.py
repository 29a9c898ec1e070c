"""The console's pages and the API's lists, as an administrator opens them."""

from __future__ import annotations

from django.contrib.auth.models import User

from broker.models import Pool
from tests.bench import estate
from tests.bench.ground import Ground
from tests.bench.pages import browser, measure

SIZES, SMALL_SIZES = (1_000, 5_000, 100_000), (600, 1_800)
CONSOLE = (
    "", "desktops/", "desktops/?state=failed", "desktops/?page=5", "desktops/?text=desktop-77", "pools/",
    "hypervisors/", "templates/", "operations/", "requests/", "people/", "drift/", "audit/",
)  # fmt: skip
API = (
    "hypervisors",
    "templates",
    "pools",
    "desktops",
    "operations",
    "requests",
    "desktops?limit=500",
    "desktops?offset=900",
)


def run(ground: Ground) -> None:
    for size in SMALL_SIZES if ground.is_small else SIZES:
        estate.raze()
        estate.build(size)
        client = browser(User.objects.create_superuser("dana"))
        for page in CONSOLE:
            measure("lists", client, f"/console/{page}", page=f"console/{page}", size=size)
        pool = Pool.objects.order_by("name").first()
        assert pool is not None
        measure("lists", client, f"/console/pools/{pool.pk}/", page="console/pools/ID/", size=size)
        for page in API:
            measure("lists", client, f"/api/v1/{page}", page=f"api/v1/{page}", size=size)
