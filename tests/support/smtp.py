"""A mail server on a real socket that keeps what it gets, and fails when it is told to."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from email.policy import default


@dataclass
class MailServer:
    url: str = ""
    """As DESKYARD_EMAIL_URL names it."""
    port: int = 0
    mails: list[Message] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    """Command -> what is answered to it instead: `{"RCPT": "550 No such user"}`. Empty words: the line is cut."""
    connections: int = 0


class _Talk(socketserver.StreamRequestHandler):
    """RFC 5321, as much of it as a client needs that neither signs in nor encrypts."""

    def handle(self) -> None:
        kept: MailServer = self.server.kept  # type: ignore[attr-defined]
        kept.connections += 1
        self.say("220 sink")
        while line := self.rfile.readline().decode().strip():
            command = line.split()[0].upper()
            if command in kept.refusals:
                if not kept.refusals[command]:
                    return
                self.say(kept.refusals[command])
            elif command == "DATA":
                self.say("354 Go on")
                kept.mails.append(message_from_bytes(self.content(), policy=default))
                if "AFTER" in kept.refusals:
                    return  # taken, and the answer is lost
                self.say("250 Kept")
            elif command == "QUIT":
                self.say("221 Bye")
                return
            else:
                self.say("250 Well")

    def say(self, words: str) -> None:
        self.wfile.write(f"{words}\r\n".encode())

    def content(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) and line != b".\r\n":
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        return b"".join(lines)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def mail_server() -> Iterator[MailServer]:
    kept = MailServer()
    with _Server(("127.0.0.1", 0), _Talk) as server:
        server.kept = kept  # type: ignore[attr-defined]
        kept.port = server.server_address[1]
        kept.url = f"smtp://127.0.0.1:{kept.port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="mail-server", daemon=True)
        thread.start()
        try:
            yield kept
        finally:
            server.shutdown()
            thread.join()
