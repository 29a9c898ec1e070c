"""What the account may do there, in words. Pure but for one question."""

from __future__ import annotations

from collections.abc import Mapping

from connectors.base import CloneMachine, DeleteMachine, Order, Reconfigure, RecycleMachine, SetPower, TakeSnapshot
from connectors.esxi.api import vim
from connectors.esxi.client import Client
from connectors.esxi.faults import VimFault

NEEDED: Mapping[type[Order], tuple[str, ...]] = {
    CloneMachine: (
        "VirtualMachine.Inventory.CreateFromExisting", "VirtualMachine.Provisioning.Clone",
        "VirtualMachine.Provisioning.DeployTemplate", "VirtualMachine.Config.AddNewDisk",
        "VirtualMachine.Config.AdvancedConfig", "Resource.AssignVMToPool", "Datastore.AllocateSpace", "Network.Assign",
    ),
    RecycleMachine: ("VirtualMachine.Config.Rename", "VirtualMachine.Inventory.Delete"),
    DeleteMachine: ("VirtualMachine.Inventory.Delete",),
    SetPower: (
        "VirtualMachine.Interact.PowerOn", "VirtualMachine.Interact.PowerOff", "VirtualMachine.Interact.Suspend",
        "VirtualMachine.Interact.Reset",
    ),
    TakeSnapshot: ("VirtualMachine.State.CreateSnapshot", "VirtualMachine.State.RevertToSnapshot"),
    Reconfigure: ("VirtualMachine.Config.CPUCount", "VirtualMachine.Config.Memory", "VirtualMachine.Config.Resource"),
}  # fmt: skip
"""Ids of privileges, as vSphere's roles list them."""

ONLY_VCENTER = {"VirtualMachine.Provisioning.Clone", "VirtualMachine.Provisioning.DeployTemplate"}


def warnings(client: Client, deadline: float) -> list[str]:
    """Which rights are missing at the top of the inventory. An account whose rights begin lower down is warned of too:
    where they begin cannot be seen from here."""
    service = client.service(deadline)
    wanted = sorted({right for rights in NEEDED.values() for right in rights})
    if not service.is_vcenter:
        wanted = [right for right in wanted if right not in ONLY_VCENTER]
    manager = client.object(vim.AuthorizationManager, service.id("authorizationManager"), deadline)
    try:
        answer = manager.HasPrivilegeOnEntities(
            entity=[vim.Folder(service.id("rootFolder"))], sessionId=client.session_key(), privId=wanted
        )
    except VimFault as fault:
        return [f"What the account may do could not be found out ({fault.name})."]
    held = {one.privId for of in answer or () for one in of.privAvailability if one.isGranted}
    missing = [right for right in wanted if right not in held]
    return (
        [
            "At the top of the inventory the account lacks: "
            + ", ".join(missing)
            + ". Orders fail where it lacks them further down too."
        ]
        if missing
        else []
    )
