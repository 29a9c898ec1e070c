"""The machine's side of a stream: its screen's address, as soon as a pump has it, and a connection signed in there."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from contextlib import suppress

import structlog

from broker.relay import rfb
from broker.relay.closing import Closing, Code
from broker.relay.registry import Registry
from broker.relay.rows import ask
from broker.relay.streams import READ_LIMIT
from broker.services import screens
from broker.services.errors import Clash, Forbidden

log = structlog.get_logger()

TARGET_S = 15
"""How long the address of a screen is awaited."""
LOOK_S = 0.5
"""How often rows are looked at meanwhile, should no hint come."""
HANDSHAKE_S = 10


async def target_of(here: Registry, admission: screens.Admission) -> screens.Target:
    """The screen's address, as soon as the pump has it. Raises `Closing`."""
    operation = await ask(screens.operation_of, admission.ticket_id)
    with here.waiting_for(operation) as arrived:
        try:
            async with asyncio.timeout(TARGET_S):
                while True:
                    arrived.clear()
                    target = await ask(screens.target_of, admission.ticket_id)
                    if target:
                        return target
                    with suppress(TimeoutError):
                        await asyncio.wait_for(arrived.wait(), LOOK_S)
        except TimeoutError:
            raise Closing(Code.NOT_READY, "The desktop's screen was not ready in time. Try again.") from None
        except Clash as clash:
            raise Closing(Code.FAILED, clash.message) from None
        except Forbidden as refusal:
            raise Closing(Code.NOT_ALLOWED, refusal.message) from None


async def open_screen(target: screens.Target) -> tuple[StreamReader, StreamWriter]:
    """A connection to the screen, signed in. Raises `Closing`."""
    writer: StreamWriter | None = None
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            reader, writer = await asyncio.open_connection(target.host, target.port, limit=READ_LIMIT)
            await rfb.sign_in(reader, writer, target.password)
            return reader, writer
    except TimeoutError:
        reason = f"The desktop's screen did not answer within {HANDSHAKE_S} seconds. Try again."
    except rfb.ScreenRefused as refused:
        reason = f"The desktop's screen let nobody in. {refused}"
    except OSError as error:
        log.warning("screen.unreachable", host=target.host, port=target.port, reason=type(error).__name__)
        reason = "The desktop's screen cannot be reached. Try again; if it stays so, tell your administrator."
    except BaseException:
        if writer:
            writer.close()
        raise
    if writer:
        writer.close()
    raise Closing(Code.UNREACHABLE, reason)
