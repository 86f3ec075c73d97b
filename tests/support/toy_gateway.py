"""What a server needs to find the toy service of the tests: its path, and networks of its tasks."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support import handmade_networks

TOY = Path(__file__).parents[1] / "toy_service"


def toy_environment() -> dict[str, str]:
    """With the toy service on the path."""
    return {"PYTHONPATH": os.pathsep.join([str(TOY), *filter(None, [os.environ.get("PYTHONPATH", "")])])}


def add_toy_models(root: Path) -> Path:
    """A repository with two networks of the task that measures, and one of the task that asks it."""
    root.mkdir()
    for name, truth in (("poor", 0.1), ("good", 0.9)):
        facts = {"task": "brightness", "family": "eyes", "quality": {"truth": truth}}
        handmade_networks.add_identity(root, name, "FP32", (-1,), facts=facts)
    handmade_networks.add_identity(root, "sharp", "FP32", (-1,), facts={"task": "contrast"})
    return root


def waiting_for(file: Path) -> bytes:
    """An image that the service looks at only when ``file`` is there: until then its execution hangs."""
    return b"wait:" + str(file).encode()
