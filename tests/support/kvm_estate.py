"""Real KVM hosts registered with a stack as an administrator would, but by services: for tests without a browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib.auth.models import Group, User

from broker.models import Hypervisor, Machine, Operation, Pool, TemplateCopy, TemplateVersion
from broker.services import hypervisors, pools, templates
from tests.support.kvm_hosts import KvmHost
from tests.support.stack import wait_until

REACHED_S = 60


def administrator() -> User:
    user, _ = User.objects.get_or_create(username="dana", defaults={"is_staff": True})
    return user


def tls_settings(host: KvmHost) -> dict[str, str]:
    """How a broker reaches this host in production: TLS with both certificates and a SASL password."""
    return {
        "transport": "tls",
        "address": host.address,
        "user": host.tls_user,
        "password": host.tls_user_password,
        "ca_certificate": (host.client_pki / "cacert.pem").read_text(),
        "client_certificate": (host.client_pki / "clientcert.pem").read_text(),
        "client_key": (host.client_pki / "clientkey.pem").read_text(),
        "screen_listen": "0.0.0.0",  # noqa: S104 - inside the host's own network namespace
    }


def register(host: KvmHost, tell: Callable[[], str]) -> Hypervisor:
    """Register a host and wait until the worker has reached and probed it."""
    made = hypervisors.register_hypervisor(actor=administrator(), name=host.name, kind="kvm", values=tls_settings(host))

    def is_probed() -> bool:
        made.refresh_from_db()
        probes = Operation.objects.filter(hypervisor=made, kind=Operation.Kind.PROBE)
        return made.status == "up" and probes.filter(state="done").exists()

    wait_until(is_probed, REACHED_S, f"{host.name} is up and probed", tell)
    return made


def version_on(hypervisors_: Sequence[Hypervisor], image: str = KvmHost.template_name) -> TemplateVersion:
    """The image of that name as one version with a copy on each hypervisor."""
    template = templates.create_template(actor=administrator(), name="Tiny Linux")
    version = templates.add_version(actor=administrator(), template_id=template.pk)
    for hypervisor in hypervisors_:
        shown = Machine.objects.filter(hypervisor=hypervisor, is_template=True, name=image)
        wait_until(shown.exists, REACHED_S, f"{hypervisor} shows its template")
        machine = shown.get()
        templates.link_copy(actor=administrator(), version_id=version.pk, machine_id=machine.pk)
    return version


def pool_on(version: TemplateVersion, **wishes: Any) -> Pool:
    """A pool with a member on every copy of the version."""
    members = [pools.MemberWish(copy_id=copy.pk) for copy in TemplateCopy.objects.filter(version=version)]
    return pools.create_pool(
        actor=administrator(),
        **{"name": "Tiny", "naming": "tiny-###", "kind": "floating", "members": members, **wishes},
    )


def member_of_group(name: str, group: str) -> User:
    user, _ = User.objects.get_or_create(username=name)
    user.groups.add(Group.objects.get_or_create(name=group)[0])
    return user
