"""What a complete listing of a vCenter costs the client, against the least that anybody could spend on it.

The floor is the same request written by hand, sent by http.client over a kept connection, and its answer read by lxml
into dicts of texts. The peer is VMware's own simulator (tests/support/vcsim.py); what is compared is processor time of
this process, which another process's load does not change much.
"""

from __future__ import annotations

import http.client
import os
import ssl
import subprocess
import time
from pathlib import Path
from statistics import median
from xml.sax.saxutils import escape

from lxml import etree

from connectors.base import Surroundings
from connectors.esxi.connector import EsxiConnector
from connectors.esxi.mapping import MACHINE_PATHS, WHOLE_CONFIG
from connectors.esxi.settings import EsxiSettings
from tests.bench.figures import load, report
from tests.bench.ground import Ground
from tests.support.prerequisites import REPOSITORY
from tests.support.vcsim import PASSWORD, PEER, USER, Vcsim, running

MACHINES, FEW = 5_000, 300
TIMES = 5
HEAD = (
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>'
)
TAIL = "</soapenv:Body></soapenv:Envelope>"


def run(ground: Ground) -> None:
    count = FEW if ground.is_small else MACHINES
    folder = ground.folder / "vcsim"
    folder.mkdir()
    with running(binary(), folder, "-standalone-host", "0", "-host", "16", "-vm", str(count)) as sim:
        ours, floor = measure_ours(sim, folder, count), measure_floor(sim, count)
    report("inventory", "cpu", ours * 1000, "ms", machines=count, peer=PEER, load=load())
    report("inventory", "floor", floor * 1000, "ms", machines=count, peer=PEER)
    report("inventory", "ratio", ours / floor, "times the floor", machines=count, peer=PEER)


def binary() -> Path:
    folder = Path(os.environ.get("DESKYARD_CACHE", "/var/cache/deskyard")) / "vcsim"
    build = REPOSITORY / "tests" / "witnesses" / "vcsim" / "build.sh"
    subprocess.run([build, folder], check=True, stdout=subprocess.DEVNULL)
    return folder / "vcsim"


def measure_ours(sim: Vcsim, folder: Path, count: int) -> float:
    """Seconds of processor time of a listing, the connector being signed in."""
    settings = EsxiSettings(
        address=sim.address, port=sim.port, user=USER, password=PASSWORD, ca_certificate=sim.certificate.pem
    )
    connector = EsxiConnector(settings, Surroundings("bench", folder))
    spent = []
    for _ in range(TIMES):
        began = time.process_time()
        seen = connector.inventory(None, time.monotonic() + 120)
        spent.append(time.process_time() - began)
        assert seen.complete, seen.partial
        assert len(seen.machines) == count
    connector.close()
    return median(spent[1:])


def measure_floor(sim: Vcsim, count: int) -> float:
    trust = ssl.create_default_context(cadata=sim.certificate.pem)
    connection = http.client.HTTPSConnection(sim.address, sim.port, timeout=120, context=trust)
    headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": "urn:vim25/6.5"}

    def ask(inner: str) -> bytes:
        connection.request("POST", "/sdk", f"{HEAD}{inner}{TAIL}".encode(), headers)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body[:500]
        if cookie := answer.getheader("Set-Cookie"):
            headers["Cookie"] = cookie.partition(";")[0]
        return body

    ask(
        '<Login xmlns="urn:vim25"><_this type="SessionManager">SessionManager</_this>'
        f"<userName>{escape(USER)}</userName><password>{escape(PASSWORD)}</password></Login>"
    )
    made = etree.fromstring(
        ask(
            '<CreateContainerView xmlns="urn:vim25"><_this type="ViewManager">ViewManager</_this>'
            '<container type="Folder">group-d1</container><type>VirtualMachine</type><recursive>true</recursive>'
            "</CreateContainerView>"
        )
    )
    view = made.findtext(".//{urn:vim25}returnval")
    paths = "".join(f"<pathSet>{path}</pathSet>" for path in (*MACHINE_PATHS, WHOLE_CONFIG))
    request = (
        '<RetrievePropertiesEx xmlns="urn:vim25"><_this type="PropertyCollector">propertyCollector</_this><specSet>'
        f"<propSet><type>VirtualMachine</type>{paths}</propSet><objectSet>"
        f'<obj type="ContainerView">{view}</obj><skip>true</skip><selectSet xsi:type="TraversalSpec"><name>v</name>'
        "<type>ContainerView</type><path>view</path><skip>false</skip></selectSet></objectSet></specSet><options/>"
        "</RetrievePropertiesEx>"
    )
    spent = []
    for _ in range(TIMES):
        began = time.process_time()
        found = texts(ask(request))
        spent.append(time.process_time() - began)
        assert len(found) == count
    connection.close()
    return median(spent[1:])


def texts(answer: bytes) -> dict[str, dict[str, str]]:
    """The machines of an answer: id -> property -> text."""
    found = {}
    for node in etree.fromstring(answer, etree.XMLParser(huge_tree=True)).iter("{urn:vim25}objects"):
        values = {}
        for part in node.iterchildren("{urn:vim25}propSet"):
            values[part[0].text or ""] = part[1].text or ""
        found[node[0].text or ""] = values
    return found
