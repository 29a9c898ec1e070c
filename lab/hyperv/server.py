"""A host's WinRM: sign-in, sealing, shells, and PowerShell as far as our scripts go."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from lab.http import LabServer, Request, Response
from lab.hyperv import accounts, landings, mirrors, points, replicas, sealing, wsman
from lab.hyperv.accounts import Account
from lab.hyperv.host import HypervHost
from lab.hyperv.shells import LONGEST_LINE, LONGEST_LINE_WITHOUT_CMD, Command, Shell
from lab.hyperv.words import Thrown, fault_of
from lab.hyperv.wsman import Asked, WsmanFault

SOAP = "application/soap+xml;charset=UTF-8"
_SCRIPT = re.compile(rb"deskyard-script: (\w+ \d+)")


class WinRmServer(LabServer):
    """One host's endpoint. Labels are "Sign in", "Create", "Command", "Send orders 1", "Receive orders 1", …"""

    server_header = "Microsoft-HTTPAPI/2.0"

    def __init__(
        self,
        host: HypervHost,
        address: str = "127.0.0.3",
        port: int = 0,
        *,
        accounts: Sequence[Account],
        tls: bool = True,
        certificate_folder: Path | None = None,
    ) -> None:
        super().__init__(host.world, address, port, tls=tls, certificate_folder=certificate_folder)
        self.host = host
        self.shells: dict[str, Shell] = {}
        self.starts = 0
        """How many PowerShells have been started."""
        self.sign_ins = 0
        """How often somebody tried to sign in, rightly or not."""
        self.think_s = 0.0
        """Real seconds that a script takes before it does anything."""
        self.most_shells, self.most_commands, self.most_operations = 30, 25, 1500
        self.is_basic_allowed = False
        self.noise = b""
        """What a profile prints before anything else."""
        self.accounts: dict[str, Account] = {}
        self._round = 0
        self._shells_guard = threading.RLock()
        for account in accounts:
            self.add_account(account)

    def add_account(self, account: Account) -> None:
        self.accounts[account.principal] = account
        accounts.admit(account)

    def expire_sessions(self) -> None:
        """No connection is signed in any more; shells stay."""
        self._round += 1

    # --- sign-in ------------------------------------------------------------------------------------------------------

    def label(self, request: Request) -> str:
        """Opens the message, for only that tells what is asked; the answer to a sign-in is kept for `handle`."""
        kept = request.connection
        kept["asked"], kept["plain"], kept["reply"] = None, b"", None
        kept["reply"] = self._admit(request)
        if kept["reply"] is not None or not kept["plain"]:
            return "Sign in"
        try:
            kept["asked"] = asked = wsman.read(kept["plain"])
        except WsmanFault as problem:
            kept["reply"] = self._soap(request, 500, wsman.fault(None, problem))
            return "Unreadable"
        return f"{asked.action} {self._script_of(asked)}".strip()

    def readable(self, request: Request) -> bytes:
        plain: bytes = request.connection.get("plain", b"")
        return plain

    def _admit(self, request: Request) -> Response | None:
        """None: signed in, the plain text is kept. Else what to answer."""
        kept = request.connection
        if kept.get("round") != self._round:
            kept.pop("who", None)
            kept.pop("context", None)
        kept["round"] = self._round
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if scheme in ("Negotiate", "NTLM"):
            reply = self._negotiate(kept, scheme, base64.b64decode(value))
            if reply is not None:
                return reply
        elif scheme == "Basic" and self.is_basic_allowed:
            user, _, password = base64.b64decode(value).decode().partition(":")
            account = self.accounts.get(user.lower())
            if account is None or account.password != password:
                return self._denied()
            kept["who"] = account.principal
        if "who" not in kept:
            return self._denied()
        return self._unsealed(request)

    def _negotiate(self, kept: dict[str, Any], scheme: str, token: bytes) -> Response | None:
        context: Any = kept.get("context")
        if context is None or context.complete:
            sha256 = self.certificate.sha256 if self.certificate else ""
            context = kept["context"] = accounts.acceptor(token, sha256)
            kept.pop("who", None)
            self.sign_ins += 1
        try:
            reply = context.step(token)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, the token is refused
            kept.pop("context", None)
            return self._denied()
        if not context.complete:
            return Response(401, b"", {"WWW-Authenticate": f"{scheme} {base64.b64encode(reply or b'').decode()}"})
        principal = str(context.client_principal).lower()
        if principal not in self.accounts:
            kept.pop("context", None)
            return self._denied()
        kept["who"] = principal
        # The last word of SPNEGO carries a signature that the client counts.
        kept["last_word"] = f"{scheme} {base64.b64encode(reply).decode()}" if reply else ""
        return None

    def _denied(self) -> Response:
        schemes = 'Negotiate, Basic realm="WSMAN"' if self.is_basic_allowed else "Negotiate"
        return Response(401, b"", {"WWW-Authenticate": schemes})

    def _unsealed(self, request: Request) -> Response | None:
        """The plain text, out of its seal. What is unsealed is taken over TLS alone."""
        kept = request.connection
        kept["is_sealed"] = "session-encrypted" in request.headers.get("Content-Type", "")
        if kept["is_sealed"]:
            try:
                kept["plain"] = sealing.unseal(kept["context"], request.body)
            except (sealing.Unreadable, KeyError):
                kept.pop("who", None)
                kept.pop("context", None)
                return self._denied()
        elif request.body and not request.is_tls:
            return Response(500)  # AllowUnencrypted is false
        else:
            kept["plain"] = request.body
        return None if request.body else Response(200, b"", {"Content-Type": SOAP})

    # --- messages -----------------------------------------------------------------------------------------------------

    def handle(self, request: Request) -> Response:
        response = self._answered(request)
        if (last_word := request.connection.pop("last_word", "")) and response.status != 401:
            response.headers["WWW-Authenticate"] = last_word
        return response

    def _answered(self, request: Request) -> Response:
        kept = request.connection
        if kept["reply"] is not None:
            reply: Response = kept["reply"]
            return reply
        if kept.get("round") != self._round:
            kept.pop("who", None)
            return self._denied()
        asked: Asked = kept["asked"]
        try:
            return self._soap(request, 200, self._act(asked, str(kept["who"])))
        except WsmanFault as problem:
            return self._soap(request, 500, wsman.fault(asked, problem))

    def _soap(self, request: Request, status: int, text: bytes) -> Response:
        kept = request.connection
        if not kept.get("is_sealed"):
            return Response(status, text, {"Content-Type": SOAP})
        return Response(status, sealing.seal(kept["context"], text), {"Content-Type": sealing.CONTENT_TYPE})

    def _act(self, asked: Asked, who: str) -> bytes:
        if asked.action == "Create":
            return self._create(asked, who)
        shell = self._shell(asked, who)
        if asked.action == "Delete":
            return self._delete(asked, shell)
        if asked.action == "Command":
            return self._command(asked, shell, who)
        command = shell.commands.get(asked.command)
        if command is None:
            raise WsmanFault(wsman.NO_SHELL, "The command is not there any more.")
        if asked.action == "Send":
            command.feed(asked.stdin, is_end=asked.is_end)
            return wsman.empty(asked)
        if asked.action == "Receive":
            taken = command.take(wsman.budget(asked), asked.timeout_s)
            if command.killed.is_set():
                raise WsmanFault(wsman.NO_SHELL, "The command is not there any more.")
            if taken is None:
                raise WsmanFault(wsman.TIMED_OUT, "The operation has timed out.")
            return wsman.received(asked, command.id, *taken)
        if asked.action == "Signal":
            command.killed.set()
            shell.commands.pop(command.id, None)
            return wsman.empty(asked)
        raise WsmanFault(wsman.BAD_REQUEST, f"There is no action {asked.action}.")

    def _create(self, asked: Asked, who: str) -> bytes:
        with self._shells_guard:
            if sum(it.owner == who for it in self.shells.values()) >= self.most_shells:
                raise WsmanFault(wsman.TOO_MANY_SHELLS, "The maximum number of concurrent shells has been exceeded.")
            id = asked.shell_id_wanted or str(uuid4()).upper()
            self.shells[id] = Shell(id, who)
        return wsman.created(asked, id)

    def _shell(self, asked: Asked, who: str) -> Shell:
        shell = self.shells.get(asked.shell)
        if shell is None or shell.owner != who:
            raise WsmanFault(wsman.NO_SHELL, "The request contains invalid selectors for the resource.")
        return shell

    def _delete(self, asked: Asked, shell: Shell) -> bytes:
        with self._shells_guard:
            self.shells.pop(shell.id, None)
        for command in shell.commands.values():
            command.killed.set()
        return wsman.empty(asked)

    def lose_shells(self) -> None:
        """As after a restart of the service."""
        with self._shells_guard:
            lost, self.shells = list(self.shells.values()), {}
        for shell in lost:
            for command in shell.commands.values():
                command.killed.set()

    def _command(self, asked: Asked, shell: Shell, who: str) -> bytes:
        shell.operations += 1
        if shell.operations > self.most_operations:
            raise WsmanFault(wsman.TOO_MANY_OPERATIONS, "The maximum number of concurrent operations was exceeded.")
        if len(shell.commands) >= self.most_commands:
            raise WsmanFault(wsman.TOO_MANY_SHELLS, "The maximum number of processes per shell was exceeded.")
        is_direct = asked.options.get("WINRS_SKIP_CMD_SHELL", "").upper() == "TRUE"
        command = Command(asked.command or str(uuid4()).upper(), asked.command_line, is_direct)
        shell.commands[command.id] = command
        command.start(lambda it: self._run(it, self.accounts[who]))
        return wsman.commanded(asked, command.id)

    def _script_of(self, asked: Asked) -> str:
        """The name and number of the script that a command was sent, or is being sent."""
        shell = self.shells.get(asked.shell)
        command = shell.commands.get(asked.command) if shell else None
        if command is None:
            return ""
        if not command.script and (found := _SCRIPT.search(b"".join([bytes(command.stdin), *asked.stdin]))):
            command.script = found[1].decode()
        return command.script

    # --- programs -----------------------------------------------------------------------------------------------------

    def _run(self, command: Command, account: Account) -> int:
        if len(command.line) > (LONGEST_LINE_WITHOUT_CMD if command.is_direct else LONGEST_LINE):
            command.write("stdout", b"The command line is too long.\r\n")
            return 1
        if command.line.startswith("powershell.exe "):
            return self._powershell(command, account)
        if command.line.strip() == "whoami":
            command.write("stdout", f"{account.principal}\r\n".encode())
            return 0
        if command.line.strip() == "hostname":
            command.write("stdout", f"{self.host.id}\r\n".encode())
            return 0
        command.write("stderr", f"'{command.line.split()[0]}' is not recognized.\r\n".encode())
        return 1

    def _powershell(self, command: Command, account: Account) -> int:
        self.starts += 1
        if self.noise:
            command.write("stdout", self.noise)
        command.write("stderr", b'#< CLIXML\r\n<Objs><Obj S="progress" RefId="0"></Obj></Objs>')
        if not command.wait_for_input() or command.killed.wait(self.think_s):
            return 1
        try:
            document = json.loads(bytes(command.stdin).decode("ascii"))
        except ValueError:
            told: dict[str, Any] = {
                "id": "System.ArgumentException,Microsoft.PowerShell.Commands.ConvertFromJsonCommand"
            }
            self._tell(command, {"ok": False, "v": 0, "hresult": -2147024809, "msg": "", **told})
            return 3
        answer = {"v": document["v"]}
        try:
            answer |= {"ok": True, "r": self._result(command, document, account)}
        except Thrown as error:
            answer |= {"ok": False, "at": "", **fault_of(error)}
        self._tell(command, answer)
        return 0 if answer["ok"] else 3

    def _result(self, command: Command, document: Mapping[str, Any], account: Account) -> Mapping[str, Any]:
        parameters = document["p"]
        if command.script == "inventory 1":
            return self.host.inventory(parameters, account.principal, is_admin=account.is_admin)
        if command.script == "orders 1":
            return self.host.orders(parameters, is_admin=account.is_admin, is_over=command.killed.is_set)
        if command.script == "points 1":
            return points.act(self.host, parameters, is_admin=account.is_admin)
        if command.script == "landing 1":
            return landings.act(self.host, parameters, is_admin=account.is_admin)
        if command.script == "failover 1":
            return replicas.act(self.host, parameters, is_admin=account.is_admin)
        if command.script == "mirrors 1":
            return mirrors.act(self.host, is_admin=account.is_admin)
        raise Thrown(f"Lab.UnknownScript {command.script}")

    def _tell(self, command: Command, answer: Mapping[str, Any]) -> None:
        command.write("stdout", b"<<J " + json.dumps(answer, ensure_ascii=False).encode() + b" J>>")

    def wait_until_quiet(self, seconds: float = 5.0) -> None:
        """Until no command runs any more."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if all(it.code is not None for shell in self.shells.values() for it in shell.commands.values()):
                return
            time.sleep(0.02)
