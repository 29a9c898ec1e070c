"""The address of every page of the console, for a furnished house."""

from __future__ import annotations

from urllib.parse import urlencode
from uuid import uuid4

from django.urls import reverse

from tests.broker.console.furniture import Furniture
from tests.broker.portal.cast import Estate

LISTS = (
    "dashboard", "desktops", "pools", "schedules", "templates", "networks", "hypervisors", "people", "requests",
    "operations", "drift", "audit", "replication", "runs", "points", "vaults", "failovers",
    "sessions", "applications",
)  # fmt: skip
PLAIN = (
    *LISTS, "search", "patterns", "pulse", "tasks", "hypervisor-kinds", "template-add", "network-add",
    "pool-add", "user-add", "group-add", "calendar-add", "policy-add", "policy-watch", "vault-add", "application-add",
    "client-files", "client-files-bring", "client-files-anew",
)  # fmt: skip
SHARED = frozenset({"session-host", "seat-release", "shared-pool", "shared-pool-edit"})
"""Pages that others of the list show for a pool of another kind: no addresses of their own."""


def all_pages(house: Estate, furniture: Furniture) -> dict[str, str]:
    """Name -> address of everything that answers to GET."""
    kvm, pool, template = house.hypervisor.pk, house.pool.pk, house.copy.version.template_id
    member = house.pool.members.get().pk
    entitlement = house.pool.entitlements.all()[0].pk
    named: dict[str, object] = {
        "hypervisor": kvm, "hypervisor-machines": kvm, "hypervisor-edit": kvm, "hypervisor-limits": kvm,
        "hypervisor-drain": kvm, "hypervisor-remove": kvm, "hypervisor-absence": furniture.doubtful.pk,
        "hypervisor-add": "kvm", "template": template, "template-edit": template, "version-add": template,
        "network-edit": furniture.network.pk, "network-delete": furniture.network.pk,
        "template-delete": template, "copy-link": house.copy.version_id, "version-remove": house.copy.version_id,
        "copy-remove": house.copy.pk, "pool": pool, "pool-edit": pool, "pool-enable": pool, "pool-delete": pool,
        "member-add": pool, "pool-entitle": pool, "member-edit": member, "member-remove": member,
        "entitlement-withdraw": entitlement, "desktop": house.desktop.pk, "desktop-recycle": house.desktop.pk,
        "desktop-retire": house.desktop.pk, "desktop-forget": house.desktop.pk,
        "desktop-release": house.desktop.pk, "desktop-power": house.desktop.pk,
        "operation": furniture.failed.pk, "request-cancel": furniture.waiting.pk, "pool-terms": pool,
        "pool-timers": pool, "pool-scaling": pool,
        "pool-push": pool, "push": furniture.push.pk, "push-cancel": furniture.push.pk,
        "push-roll-back": furniture.push.pk,
        "request-approve": furniture.to_decide.pk, "request-decline": furniture.to_decide.pk, "owner-add": pool,
        "owner-dismiss": furniture.owner.pk, "drift-adopt": furniture.unknown.pk,
        "drift-forget": furniture.unknown.pk, "drift-delete": furniture.left_over.pk, "user": house.bob.pk,
        "user-groups": house.bob.pk, "user-role": house.bob.pk,
        "user-password": house.bob.pk, "user-active": house.bob.pk,
        "schedule-add": pool, "schedule-edit": furniture.schedule.pk, "schedule-delete": furniture.schedule.pk,
        "calendar-edit": furniture.calendar.pk, "calendar-delete": furniture.calendar.pk,
        "host-drain": furniture.host.pk, "token-add": house.bob.pk, "token-revoke": furniture.token.pk,
        "policy": furniture.policy.pk, "policy-edit": furniture.policy.pk, "policy-delete": furniture.policy.pk,
        "policy-choose": furniture.policy.pk, "choice-remove": furniture.choice.pk, "run": furniture.run.pk,
        "point": furniture.point.pk, "point-bring-up": furniture.point.pk, "point-delete": furniture.point.pk,
        "point-test": furniture.point.pk, "failover": furniture.moving.pk, "failover-cancel": furniture.moving.pk,
        "failover-group": furniture.group, "failover-group-cancel": furniture.group,
        "desktop-fail-over": furniture.stranded.pk, "desktop-bring-up": furniture.stranded.pk,
        "desktop-move": furniture.own_pool.desktops.get(name="engineering-005").pk,
        "version-publish": furniture.new_version.pk, "publication": furniture.publishing.pk,
        "publication-cancel": furniture.publishing.pk,
        "session-disconnect": furniture.session.pk, "session-log-off": furniture.session.pk,
        "session-notice": furniture.session.pk,
        "application": furniture.application.pk, "application-entitle": furniture.application.pk,
        "application-withdraw": furniture.application.pk,
        "vault-edit": furniture.vault.pk, "vault-remove": furniture.vault.pk,
    }  # fmt: skip
    pages = {name: reverse(f"console:{name}") for name in PLAIN}
    pages |= {name: reverse(f"console:{name}", args=[argument]) for name, argument in named.items()}
    host, hall = furniture.session_host.pk, furniture.session_host.pool_id
    pages |= {
        "session-host": reverse("console:desktop", args=[host]),
        "seat-release": f"{reverse('console:desktop-release', args=[host])}?user={house.bob.pk}",
        "shared-pool": reverse("console:pool", args=[hall]),
        "shared-pool-edit": reverse("console:pool-edit", args=[hall]),
    }
    return pages | {
        name: f"{reverse(f'console:{name}', args=[furniture.own_pool.pk])}?{looking_ahead(furniture)}"
        for name in ("pool-failover", "pool-failover-begin")
    }


def acts(house: Estate, furniture: Furniture) -> dict[str, str]:
    """Name -> address of everything that only does something."""
    named: dict[str, list[object]] = {
        "desktops-change": [], "requests-decide": [], "desktop-maintenance": [house.desktop.pk],
        "desktop-forget-certificate": [house.desktop.pk], "hypervisor-recheck": [house.hypervisor.pk],
        "operation-retry": [furniture.failed.pk], "operation-cancel": [furniture.failed.pk],
        "pool-resume": [house.pool.pk], "schedule-enable": [furniture.schedule.pk],
        "policy-run": [furniture.policy.pk], "policy-enable": [furniture.policy.pk],
        "standby-anew": [uuid4()], "run-cancel": [furniture.run.pk], "point-verify": [furniture.point.pk],
    }  # fmt: skip
    return {name: reverse(f"console:{name}", args=arguments) for name, arguments in named.items()}


def looking_ahead(furniture: Furniture, kind: str = "move") -> str:
    """The query of a dry run."""
    there = furniture.elsewhere
    wish = {"hypervisor": there.pk, "storage": there.storages.get().pk, "vault": furniture.vault.pk, "kind": kind}
    return urlencode(wish)
