"""uvicorn's server without its pauses: it ends when it is told to, not up to 0.3 s later.

Whoever has a DCU for each test would wait for the pauses each time. Knows no replies and no URLs.
"""

import asyncio
import contextlib
import socket

import uvicorn

# In s: how often the header `Date` is renewed, and how often an ending server looks who is left.
_RENEWED = 1.0
_LOOKS = 0.002


class PromptServer(uvicorn.Server):
    """A server that ends at once where nobody waits for a reply; of one event loop's thread."""

    def __init__(self, config: uvicorn.Config):
        super().__init__(config)
        self._told = asyncio.Event()

    def end(self, *, by_force: bool = False) -> None:
        """End when all replies have left; `by_force`: whatever becomes of them."""
        self.force_exit = self.force_exit or by_force
        self.should_exit = True
        self._told.set()

    async def main_loop(self) -> None:
        """Wait for the end."""
        # uvicorn counts tenths of a second here, and renews the date with each tenth.
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), _RENEWED)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody in, and end when the last reply has left or is given up."""
        for listener in [*self.servers, *(sockets or [])]:
            listener.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        loop = asyncio.get_running_loop()
        last = loop.time() + (self.config.timeout_graceful_shutdown or 0)
        while (state.connections or state.tasks) and not self.force_exit and loop.time() < last:
            await asyncio.sleep(_LOOKS)
        if not self.force_exit:
            for task in list(state.tasks):
                task.cancel()
