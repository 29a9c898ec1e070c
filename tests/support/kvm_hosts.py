"""A laboratory of real, independent libvirt hosts on one machine, each in namespaces of its own.

Every host has its own libvirtd, uuid, hostname, storage pools ("default", and "small" with 16 MiB), NAT network
"default", template "tiny", address 10.77.N.2 and VNC ports. It is reachable as a broker reaches one: `tls_uri`
(certificates and SASL SCRAM), `ssh_uri` (known-hosts file), and, for the laboratory alone, `uri` (plain TCP, no
credentials).

A host's processes die with the test run, even by SIGKILL, and the kernel then removes its network. The machine's own
libvirtd, its guests and its folders are never touched. Cgroups are not visible inside: no CPU or memory tuning there.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import libvirt

from deploy.images.tiny_template import define_tiny_template
from tests.support.pki import LIFETIME, Authority, new_authority
from tests.support.prerequisites import REPOSITORY, MissingPrerequisite, require_program, require_root
from tests.support.process import die_with_us
from tests.support.scratch import scratch_directory, scratch_root

START_LIMIT_S = 60
RECONNECT_LIMIT_S = 5
SLOTS = 200
"""How many hosts may exist at once on the machine, over all test runs: the third number of their addresses."""

UNDEFINE_ALL = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)

NETWORK_XML = """<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'><name>default</name>
<forward mode='nat'/><bridge name='virbr0' stp='off' delay='0'/>
<ip address='192.168.122.1' netmask='255.255.255.0'>
<dhcp><range start='192.168.122.10' end='192.168.122.250'/></dhcp></ip>
<dnsmasq:options><dnsmasq:option value='no-ping'/></dnsmasq:options></network>"""
# no-ping: dnsmasq otherwise pings an address for 3 s before it leases it.


class KvmHost:
    """One host. `start` and `stop` are its power; `kill_libvirtd`, `freeze_libvirtd`, `unplug` are its faults."""

    pool_name = "default"
    small_pool_name = "small"
    network_name = "default"
    template_name = "tiny"
    tls_user_password = "correct horse battery staple"

    def __init__(self, name: str, slot: int, folder: Path, authority: Authority, tiny_image: Path) -> None:
        self.name = name
        self.address = f"10.77.{slot}.2"
        self.folder = folder
        self._slot = slot
        self._authority = authority
        self._tiny_image = tiny_image
        self._init: subprocess.Popen[bytes] | None = None
        self._sshd: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Without credentials: for looking behind the broker's back."""
        return f"qemu+tcp://{self.address}/system"

    @property
    def tls_uri(self) -> str:
        """Asks for `tls_user` and `tls_user_password` by SASL. Without the pkipath: add your own certificates."""
        return f"qemu+tls://{self.address}/system"

    @property
    def tls_user(self) -> str:
        return f"broker@{self.name}"

    @property
    def client_pki(self) -> Path:
        """Folder with cacert.pem, clientcert.pem and clientkey.pem that this host accepts."""
        return self.folder / "client"

    @property
    def stranger_pki(self) -> Path:
        """The same files of an authority that neither side trusts."""
        return self.folder / "stranger"

    @property
    def ssh_uri(self) -> str:
        """By libssh2, as root. Needs `start_ssh`. Without key and known hosts: add `ssh_key` and `known_hosts`."""
        return f"qemu+libssh2://root@{self.address}/system"

    @property
    def ssh_key(self) -> Path:
        return self.folder / "ssh" / "id"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "ssh" / "known_hosts"

    @property
    def images(self) -> Path:
        """The pool's folder as seen from outside."""
        return self.folder / "lib" / "images"

    def start(self) -> None:
        """Network, storage and template are ready when this returns."""
        self._write_files()
        self._start_namespaces()
        self.start_libvirtd()
        self._prepare()

    def stop(self) -> None:
        """Power cut: ends libvirtd, guests and network of this host at once. Its disks stay until the folder goes."""
        if self._init is not None and self._libvirtd_pid() is not None:
            # First and apart, so that it can still close its connections: with the network gone at the same time, a
            # client that forgot to close one would wait for this host for ever.
            self.kill_libvirtd()
        for process in (self._sshd, self._init):
            if process is not None:
                process.kill()
                process.wait()
        self._sshd = self._init = None
        self._remove_link()

    def start_libvirtd(self) -> None:
        """Answers when this returns; running guests are found again. A running daemon is left alone."""
        deadline = time.monotonic() + START_LIMIT_S
        while unborn := self._start_and_look(deadline):
            # libvirt 9.0, killed while it starts a guest, may take that guest for running ever after, under a job that
            # nobody ends: whatever is asked of it waits. Only a host that starts anew has forgotten it.
            self.kill_libvirtd()
            for name in unborn:
                for ending in ("xml", "pid"):
                    (self.folder / "run" / "qemu" / f"{name}.{ending}").unlink(missing_ok=True)

    def _start_and_look(self, deadline: float) -> set[str]:
        """Start the daemon if need be. The guests that it still calls running after RECONNECT_LIMIT_S, though they have
        no process."""
        conn, until = self._answering(deadline), time.monotonic() + RECONNECT_LIMIT_S
        try:
            while (unborn := self._running_without_process(conn)) and time.monotonic() < until:
                time.sleep(0.1)
            return unborn
        finally:
            conn.close()

    def _answering(self, deadline: float) -> libvirt.virConnect:
        while True:
            if self._libvirtd_pid() is None:  # also when it died while it started: a service manager does the same
                self._inside("libvirtd", "-l", "-d", "-p", "/run/libvirt/libvirtd.pid")
            try:
                return self.connect()
            except libvirt.libvirtError as error:
                if time.monotonic() > deadline:
                    raise MissingPrerequisite(f"libvirtd of {self.name} does not answer: {error}") from error
                time.sleep(0.1)

    def _running_without_process(self, conn: libvirt.virConnect) -> set[str]:
        running = {domain.name() for domain in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)}
        if not running:
            return set()
        commands = [_command(pid) for pid in self.guest_pids()]
        return {name for name in running if not any(f"\0guest={name}," in command for command in commands)}

    def kill_libvirtd(self) -> None:
        """Ends the daemon as a crash would; guests go on running. Its address refuses connections afterwards."""
        pid = self._libvirtd_pid()
        self._signal_libvirtd(signal.SIGKILL)
        # Until it is collected: a dying process loses its command line first and its listening sockets last.
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.02)

    def freeze_libvirtd(self) -> None:
        """Connections are taken (by the kernel), nothing is answered: a half-open peer. Undone by `thaw_libvirtd`."""
        self._signal_libvirtd(signal.SIGSTOP)

    def thaw_libvirtd(self) -> None:
        self._signal_libvirtd(signal.SIGCONT)

    def freeze_copying(self) -> bool:
        """Whether a copy of a disk was under way, which now stands still in the middle. Undone by `thaw_copying`."""
        copying = self._copying_pids()
        for pid in copying:
            os.kill(pid, signal.SIGSTOP)
        stopped = [pid for pid in copying if _stands_still(pid)]
        return bool(stopped)

    def thaw_copying(self) -> None:
        for pid in self._copying_pids():
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def showing_certificate(self, name: str, address: str, lifetime: timedelta = LIFETIME) -> Iterator[None]:
        """Within the block the daemon shows a certificate for that host, signed by the authority that clients trust."""
        self._restart_with_certificate(name, address, lifetime)
        try:
            yield
        finally:
            self._restart_with_certificate(self.name, self.address, LIFETIME)

    def _restart_with_certificate(self, name: str, address: str, lifetime: timedelta) -> None:
        self._authority.issue_server(self.folder / "etc" / "pki", name, address, lifetime)
        self.kill_libvirtd()
        self.start_libvirtd()

    def unplug(self) -> None:
        """Packets to and from the host vanish; connections stay open and silent. Undone by `plug_in`."""
        # Not by taking the link down: its address would then be looked for outside, where a proxy may answer.
        self.plug_in()
        self._inside("iptables", "-w", "-t", "raw", "-A", "PREROUTING", "-i", "mgmt0", "-j", "DROP")
        self._inside("iptables", "-w", "-t", "raw", "-A", "OUTPUT", "-o", "mgmt0", "-j", "DROP")

    def plug_in(self) -> None:
        # The table `raw` is ours alone: libvirt keeps to filter, nat and mangle.
        self._inside("iptables", "-w", "-t", "raw", "-F")

    def start_ssh(self) -> None:
        """An SSH server for root with `ssh_key`, on port 22 of the host. Idempotent."""
        if self._sshd is not None and self._sshd.poll() is None:
            return
        options = {
            "ListenAddress": self.address,
            "HostKey": self.folder / "ssh" / "hostkey",
            "AuthorizedKeysFile": self.folder / "ssh" / "id.pub",
            "StrictModes": "no",  # the key's folder belongs to the test run, not to root's home
            "PidFile": "none",
        }
        flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        sshd = require_program("sshd", "openssh-server")
        self._sshd = self._start("sshd", [*self._enter(), str(sshd), "-D", "-e", "-f", "/dev/null", *flags])
        self._wait(self._sshd, "sshd", lambda: "Server listening" in self._log("sshd").read_text())

    def connect(self) -> libvirt.virConnect:
        """A connection behind the broker's back; close it."""
        return libvirt.open(self.uri)

    def run(self, *command: str) -> str:
        """What the command prints when run inside the host. Raises subprocess.CalledProcessError."""
        return _run(*self._enter(), *command)

    @contextmanager
    def passing_on(self, port: int, guest: str, guest_port: int) -> Iterator[None]:
        """Connections to this port of the host's address go to a guest, whose network nobody outside reaches."""
        socat = str(require_program("socat", "socat"))
        way = (f"TCP-LISTEN:{port},bind={self.address},fork,reuseaddr", f"TCP:{guest}:{guest_port}")
        nsenter = str(require_program("nsenter", "util-linux"))
        # Its network alone: into a namespace of processes nsenter goes by a child, which would outlive the block.
        passing = self._start("socat", [nsenter, "-t", str(self._first_pid()), "--net", "--", socat, *way])
        try:
            yield
        finally:
            passing.terminate()
            passing.wait(30)

    @contextmanager
    def common_pool(self) -> Iterator[Path]:
        """The folder of a storage pool "here", whose files have the same paths inside and outside. Ends with them."""
        folder = self.folder / "here"
        folder.mkdir()
        conn = self.connect()
        try:
            target = f"<target><path>{folder}</path></target>"
            pool = conn.storagePoolDefineXML(f"<pool type='dir'><name>here</name>{target}</pool>")
            pool.create()
            yield folder
            pool.destroy()
            pool.undefine()
        finally:
            conn.close()
            shutil.rmtree(folder)

    def guest_pids(self) -> set[int]:
        """Process ids (as seen from outside) of the host's running guests."""
        # A daemon that starts may also ask QEMU what it can do: such a process has no guest's name.
        commands = {pid: _command(pid) for pid in self._processes()}
        return {pid for pid, command in commands.items() if "qemu-system" in command and "\0guest=" in command}

    def image_info(self, path: str) -> dict[str, Any]:
        """What `qemu-img info` says of a disk, which may be in use. `path` is the host's own, in the pool "default"."""
        qemu_img = require_program("qemu-img", "qemu-utils")
        told = _run(str(qemu_img), "info", "-U", "--output=json", str(self.images / Path(path).name))
        info: dict[str, Any] = json.loads(told)
        return info

    def wipe(self) -> None:
        """Removes all machines and volumes but the template's."""
        conn = self.connect()
        try:
            for domain in conn.listAllDomains():
                if domain.name() == self.template_name:
                    continue
                if domain.isActive():
                    domain.destroy()
                if domain.isPersistent():
                    domain.undefineFlags(UNDEFINE_ALL)
            for pool in conn.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
                pool.refresh()
                for volume in pool.listAllVolumes():
                    if not volume.name().startswith(f"{self.template_name}-"):
                        volume.delete()
        finally:
            conn.close()

    @property
    def _link(self) -> str:
        return f"vdi{self._slot}"

    def _write_files(self) -> None:
        for part in ("etc", "lib/images", "lib/dnsmasq", "run", "cache", "log/qemu", "sasl2", "ssh"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "up").unlink(missing_ok=True)
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        self._write_libvirt_settings()
        # QEMU's probed capabilities: copied, they save 4-8 s at the first definition of a machine.
        shutil.copytree("/var/cache/libvirt", self.folder / "cache", dirs_exist_ok=True)
        filters = Path("/etc/libvirt/nwfilter")
        if filters.exists():
            shutil.copytree(filters, self.folder / "etc" / "nwfilter", dirs_exist_ok=True)
        self._authority.issue_server(self.folder / "etc" / "pki", self.name, self.address)
        self._authority.issue_client(self.client_pki, "broker")
        new_authority("Stranger").issue_client(self.stranger_pki, "broker")
        self._write_sasl()
        self._write_ssh_keys()

    def _write_libvirt_settings(self) -> None:
        (self.folder / "etc" / "libvirtd.conf").write_text(
            "listen_tcp = 1\n"
            'auth_tcp = "none"\n'
            "listen_tls = 1\n"
            'auth_tls = "sasl"\n'
            'ca_file = "/etc/libvirt/pki/cacert.pem"\n'
            'cert_file = "/etc/libvirt/pki/servercert.pem"\n'
            'key_file = "/etc/libvirt/pki/serverkey.pem"\n'
            "tls_no_sanity_certificate = 1\n"  # or it would not start with an expired one
            f'listen_addr = "{self.address}"\n'
            f'host_uuid = "00000000-0000-4000-8000-{self._slot:012d}"\n'
        )
        (self.folder / "etc" / "qemu.conf").write_text(
            # No virtlogd here; and root, since the folders belong to the test run.
            'stdio_handler = "file"\n'
            'user = "root"\n'
            'group = "root"\n'
            "remember_owner = 0\n"
            'vnc_listen = "0.0.0.0"\n'
            f'migration_address = "{self.address}"\n'
        )

    def _write_sasl(self) -> None:
        database = self.folder / "sasl2" / "passwd.db"
        saslpasswd = require_program("saslpasswd2", "sasl2-bin")
        account = ["-a", "libvirt", "-u", self.name, "broker"]
        _run(str(saslpasswd), "-p", "-c", "-f", str(database), *account, typed=self.tls_user_password)
        settings = "mech_list: scram-sha-256\nsasldb_path: /etc/sasl2/passwd.db\n"
        (self.folder / "sasl2" / "libvirt.conf").write_text(settings)

    def _write_ssh_keys(self) -> None:
        keygen = str(require_program("ssh-keygen", "openssh-client"))
        for name in ("hostkey", "id"):
            if not (self.folder / "ssh" / name).exists():
                _run(keygen, "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.folder / "ssh" / name))
        kind, key, *_ = (self.folder / "ssh" / "hostkey.pub").read_text().split()
        self.known_hosts.write_text(f"{self.address} {kind} {key}\n")

    def _start_namespaces(self) -> None:
        script = REPOSITORY / "tests" / "support" / "hostns.sh"
        unshare = require_program("unshare", "util-linux")
        namespaces = ["--mount", "--uts", "--net", "--pid", "--mount-proc", "--propagation", "private"]
        command: list[str | Path] = [
            unshare,
            *namespaces,
            "--fork",
            "--kill-child=KILL",
            script,
            self.folder,
            self.name,
        ]
        self._init = self._start("namespaces", die_with_us(*command))
        self._wait(self._init, "namespaces", (self.folder / "up").exists)
        self._connect_network()

    def _log(self, name: str) -> Path:
        return self.folder / "log" / f"{name}.log"

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with self._log(name).open("wb") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=_clean_environment()
            )

    def _wait(self, process: subprocess.Popen[bytes], name: str, is_up: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while not is_up():
            if process.poll() is not None or time.monotonic() > deadline:
                raise MissingPrerequisite(f"Cannot start {name} of {self.name}: {self._log(name).read_text()}")
            time.sleep(0.02)

    def _connect_network(self) -> None:
        self._remove_link()
        first = str(self._first_pid())
        _run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "mgmt0", "netns", first)
        _run("ip", "addr", "add", f"10.77.{self._slot}.1/24", "dev", self._link)
        _run("ip", "link", "set", self._link, "up")
        self._inside("ip", "addr", "add", f"{self.address}/24", "dev", "mgmt0")
        self._inside("ip", "link", "set", "mgmt0", "up")
        self._inside("ip", "route", "add", "default", "via", f"10.77.{self._slot}.1")

    def _remove_link(self) -> None:
        """Also that of a killed run: the kernel takes a dead host's link away, but a moment after its processes."""
        subprocess.run(["ip", "link", "del", self._link], stderr=subprocess.DEVNULL, check=False)

    def _prepare(self) -> None:
        conn = self.connect()
        try:
            if not conn.listAllNetworks():
                conn.networkDefineXML(NETWORK_XML)
            _make_active(conn.networkLookupByName(self.network_name))
            for name, target in (("default", "/var/lib/libvirt/images"), ("small", "/var/lib/libvirt/small")):
                if name not in conn.listStoragePools() + conn.listDefinedStoragePools():
                    xml = f"<pool type='dir'><name>{name}</name><target><path>{target}</path></target></pool>"
                    conn.storagePoolDefineXML(xml)
                _make_active(conn.storagePoolLookupByName(name))
            define_tiny_template(conn, self._tiny_image, self.pool_name, "qemu", self.template_name)
        finally:
            conn.close()

    def _first_pid(self) -> int:
        """The process id, as seen from outside, of the host's first process."""
        assert self._init is not None, f"{self.name} is not started"
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        return int(children[0])

    def _enter(self) -> list[str]:
        nsenter = str(require_program("nsenter", "util-linux"))
        return [nsenter, "-t", str(self._first_pid()), "--mount", "--uts", "--net", "--pid", "--"]

    def _inside(self, *command: str) -> None:
        _run(*self._enter(), *command)

    def _processes(self) -> list[int]:
        """All processes of the host, as seen from outside."""
        ours = os.readlink(f"/proc/{self._first_pid()}/ns/pid")
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(folder / "ns" / "pid") == ours:
                    found.append(int(folder.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # ended in the meantime, or closed even to root: not ours
        return found

    def _libvirtd_pid(self) -> int | None:
        return next((pid for pid in self._processes() if _command(pid).split("\0")[0] == "libvirtd"), None)

    def _copying_pids(self) -> list[int]:
        return [pid for pid in self._processes() if _command(pid).split("\0")[0].endswith("qemu-img")]

    def _signal_libvirtd(self, number: signal.Signals) -> None:
        pid = self._libvirtd_pid()
        assert pid is not None, f"libvirtd of {self.name} does not run"
        os.kill(pid, number)


class KvmHosts:
    """The laboratory: hosts by number, each started when first asked for."""

    def __init__(self, stack: ExitStack, tiny_image: Path) -> None:
        self._stack = stack
        self._tiny_image = tiny_image
        self._authority = new_authority("Laboratory")
        self._hosts: list[KvmHost] = []

    def take(self, count: int) -> list[KvmHost]:
        """The first `count` hosts, running, plugged in and with an answering libvirtd, whatever an earlier test did.

        They are shared by the tests of a run: remove your machines, or call `wipe`.
        """
        while len(self._hosts) < count:
            self._add()
        for host in self._hosts[:count]:
            host.plug_in()
            if host._libvirtd_pid() is not None:
                host.thaw_libvirtd()
            host.start_libvirtd()
        return self._hosts[:count]

    def _add(self) -> None:
        name = f"kvm-{'abcdefghijklmnopqrstuvwxyz'[len(self._hosts)]}"
        slot = self._stack.enter_context(_slot())
        folder = self._stack.enter_context(scratch_directory("host"))
        host = KvmHost(name, slot, folder, self._authority, self._tiny_image)
        self._stack.callback(host.stop)
        host.start()
        self._hosts.append(host)


@contextmanager
def kvm_hosts_laboratory(tiny_image: Path) -> Iterator[KvmHosts]:
    """An empty laboratory; all its hosts end with the block. Raises MissingPrerequisite without root or packages."""
    require_root("A laboratory of KVM hosts (network namespaces)")
    require_program("libvirtd", "libvirt-daemon-system")
    require_program("qemu-system-x86_64", "qemu-system-x86")
    with ExitStack() as stack:
        yield KvmHosts(stack, tiny_image)


@contextmanager
def _slot() -> Iterator[int]:
    """A number that no other test run on this machine uses, for the length of the block."""
    folder = scratch_root() / "slots"
    folder.mkdir(exist_ok=True)
    for slot in range(1, SLOTS + 1):
        lock = os.open(folder / str(slot), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        try:
            yield slot
        finally:
            os.close(lock)
        return
    raise MissingPrerequisite(f"All {SLOTS} laboratory hosts of this machine are taken by running tests")


def _make_active(thing: Any) -> None:
    if not thing.isActive():
        thing.create()


def _command(pid: int) -> str:
    """The process's arguments, separated by NUL; empty for one that ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _stands_still(pid: int) -> bool:
    """Waits until a process that was sent SIGSTOP has stopped; False if it had ended before."""
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        if state in "TZX":
            return state == "T"
        time.sleep(0.01)


def _clean_environment() -> dict[str, str]:
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def _run(*command: str, typed: str = "") -> str:
    """Standard output of the command. Raises MissingPrerequisite with its own words when it fails."""
    done = subprocess.run(
        command, input=typed, capture_output=True, text=True, check=False, timeout=120, env=_clean_environment()
    )
    if done.returncode != 0:
        raise MissingPrerequisite(f"{' '.join(command[:6])} ... failed: {done.stderr.strip()}")
    return done.stdout
