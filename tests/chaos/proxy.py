"""A proxy that spoils TCP: between the worker and one port of the stand-in, without knowing what is said there.

How often is one number, `level`: the chance that a piece of data which arrives is the last one that goes through unharmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass

PIECE = 16 * 1024
FAULTS = ("cut", "reset", "delay", "throttle", "lose_answer", "cut", "reset", "delay", "throttle", "lose_answer", "black_hole")


@dataclass(eq=False)
class Conversation:
    """One connection of the worker, and ours to the stand-in for it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    loses_answer: bool = False

    def reset(self) -> None:
        """Ends both sides with RST."""
        for writer in (self.client, self.server):
            peer = writer.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def close(self) -> None:
        """Ends both sides in order."""
        self.client.close()
        self.server.close()


class Proxy:
    """Listens on a free port of loopback, in a thread of its own."""

    def __init__(self, upstream: int, rng: random.Random) -> None:
        self.level = 0.0
        self.faults: Counter[str] = Counter()
        self._upstream = upstream
        self._rng = rng
        self._conversations: set[Conversation] = set()
        self._loop = asyncio.new_event_loop()
        self._calm = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy to {upstream}", daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def calm(self) -> None:
        """Spoils nothing from now on, and lets go of what it holds."""
        self.level = 0.0
        self._loop.call_soon_threadsafe(self._calm.set)

    def storm(self, level: float) -> None:
        """Spoils from now on."""
        self._loop.call_soon_threadsafe(self._calm.clear)
        self.level = level

    def reset_all(self) -> None:
        """Ends every connection there is."""

        async def reset() -> None:
            for conversation in list(self._conversations):
                self.faults["reset"] += 1
                conversation.reset()

        self._call(reset())

    def close(self) -> None:
        """Ends the listener, all connections and the thread."""

        async def end() -> None:
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.transport.abort()
            return
        conversation = Conversation(writer, to_server)
        self._conversations.add(conversation)
        try:
            await asyncio.gather(
                self._pump(conversation, reader, to_server, is_request=True),
                self._pump(conversation, from_server, writer, is_request=False),
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._conversations.discard(conversation)
            conversation.close()

    async def _pump(
        self, conversation: Conversation, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_request: bool
    ) -> None:
        while data := await source.read(PIECE):
            if conversation.loses_answer and not is_request:
                conversation.reset()
                return
            fault = self._rng.choice(FAULTS) if self._rng.random() < self.level else None
            if fault:
                self.faults[fault] += 1
            if fault == "black_hole":
                await self._calm.wait()
                conversation.reset()
                return
            if fault == "delay":
                await self._pause(self._rng.uniform(0.05, 1.0))
            if fault == "lose_answer":
                conversation.loses_answer = True
            if fault == "throttle":
                step = max(1, len(data) // 8)
                for start in range(0, len(data), step):
                    sink.write(data[start : start + step])
                    await sink.drain()
                    await self._pause(0.05)
                continue
            if fault in ("cut", "reset"):
                sink.write(data[: self._rng.randrange(len(data))])
                await sink.drain()
                if fault == "reset":
                    conversation.reset()
                else:
                    conversation.close()
                return
            sink.write(data)
            await sink.drain()
        sink.close()

    async def _pause(self, seconds: float) -> None:
        """Waits, unless all is calm."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._calm.wait(), seconds)
