"""What a gateway process knows of being one of several on the same ports."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True)
class Worker:
    """One of several.

    Args:
        index: which one, from 0; the first works on the jobs.
        folder: where the workers tell each other what they have counted.
        said: descriptor on which it says that it is ready.
        alive: descriptor that ends when the supervisor does.
    """

    index: int
    folder: Path
    said: int
    alive: int

    def ready(self) -> None:
        """Tell the supervisor."""
        os.write(self.said, b"%d\n" % self.index)

    def follow(self) -> None:
        """Leave, as if told to stop, when the supervisor has ended without a word. Inside the event loop."""
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(self.alive)
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(self.alive, ended)
