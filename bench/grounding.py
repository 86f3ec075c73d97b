"""What grounding shares: ten expressions against one, and a second request about a picture against the first.

Start a server with a grounding model and its detector, then:

    python bench/grounding.py --url http://127.0.0.1:8000 --pictures FOLDER

Every picture is new to the server, and so is every expression; medians of requests one after the other.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from pathlib import Path

import httpx
from PIL import Image

_KINDS = ("man", "woman", "dog", "car", "cup", "bird", "horse", "chair", "child", "ball")
_PLACES = (
    "on the left",
    "on the right",
    "in the middle",
    "at the back",
    "nearest to us",
    "in red",
    "at the top",
)


def new_pictures(folder: Path, count: int) -> list[bytes]:
    """JPEGs that differ from each other in their bytes, and from those on disk."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    made = []
    for number in range(count):
        with Image.open(paths[number % len(paths)]) as image:
            buffer = io.BytesIO()
            image.convert("RGB").save(
                buffer, "JPEG", quality=90, comment=f"{time.time_ns()} {number}".encode()
            )
            made.append(buffer.getvalue())
    return made


def seconds(client: httpx.Client, picture: bytes, expressions: list[str], fields: dict[str, str]) -> float:
    """The time of one request."""
    started = time.perf_counter()
    reply = client.post(
        "/v1/ground",
        files={"image": ("a.jpg", picture)},
        data={"expressions": json.dumps(expressions), **fields},
    )
    reply.raise_for_status()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quality", default="fast", choices=("fast", "best"))
    parser.add_argument("--detector", default="")
    options = parser.parse_args()
    fields = {"quality": options.quality, "detector": options.detector}
    pictures = iter(new_pictures(options.pictures, 2 * options.rounds + 4))
    first_number = time.time_ns() // 1000 % 9000  # what an earlier run asked is kept
    texts = (
        f"the {kind} {place}, number {number}"
        for number in range(first_number, 10**6)
        for kind in _KINDS
        for place in _PLACES
    )
    one, ten, again = [], [], []
    with httpx.Client(base_url=options.url, timeout=60) as client:
        for measured in [False, False, *[True] * options.rounds]:
            picture = next(pictures)
            first = seconds(client, picture, [next(texts)], fields)
            second = seconds(client, picture, [next(texts)], fields)
            many = seconds(client, next(pictures), [next(texts) for _ in range(10)], fields)
            if measured:
                one.append(first)
                again.append(second)
                ten.append(many)
    figures = {name: statistics.median(each) for name, each in (("one", one), ("ten", ten), ("again", again))}
    print(json.dumps({f"{name}_ms": round(each * 1e3, 1) for name, each in figures.items()}))
    print(
        json.dumps(
            {
                "ten_over_one": round(figures["ten"] / figures["one"], 2),
                "again_over_first": round(figures["again"] / figures["one"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
