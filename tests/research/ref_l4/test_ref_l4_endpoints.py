"""The benchmark drives real HTTP endpoints: Nonet's route and a chat model's, stopped and gone on with."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from nonet.cli.main import main
from nonet.research.ref_l4.annotations import Annotation
from nonet.research.ref_l4.commands import KEY_VARIABLE, read_picture
from nonet.research.ref_l4.drive import NO_BOX, drive
from nonet.research.ref_l4.endpoints import NonetEndpoint, Picture

BOX = (10, 20, 30, 40)


class Server(ThreadingHTTPServer):
    """A stand-in for both kinds of endpoint: it answers with the numbers in the expression's last words.

    Args of the class: ``failing``, how many requests get 503 first; ``key``, wanted in the header.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.failing, self.key = 0, ""
        self.seen: list[tuple[str, Any]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body))
        if self.server.failing > 0:
            self.server.failing -= 1
            self._send(503, {"error": {"message": "busy"}})
        elif self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            self._send(401, {"error": {"message": "no key"}})
        elif self.path == "/v1/ground":
            Image.open(io.BytesIO(base64.b64decode(body["image"]))).load()
            self._send(200, {"groundings": [_grounded(each) for each in body["expressions"]]})
        else:
            picture, text = body["messages"][0]["content"]
            content = picture["image_url"]["url"].partition("base64,")[2]
            Image.open(io.BytesIO(base64.b64decode(content))).load()
            said = "I see nothing." if "nothing" in text["text"] else f"Here: [[{','.join(map(str, BOX))}]]"
            self._send(200, {"choices": [{"message": {"content": said}}]})

    def _send(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Nothing on the test's output."""


def _grounded(expression: str) -> dict[str, Any]:
    return {"expression": expression, "box": None if "nothing" in expression else list(BOX), "score": 0.5}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as started:
        thread = threading.Thread(target=started.serve_forever, daemon=True)
        thread.start()
        yield started
        started.shutdown()
        thread.join()


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """Annotations of two pictures of 1000 x 1000, and the pictures."""
    rows = [
        {
            "id": number,
            "expression": caption,
            "file_name": f"{number % 2}.png",
            "bbox_xywh": [10, 20, 20, 20],
            "empty": "nothing" in caption,
            "split": "val",
        }
        for number, caption in enumerate(["a red cup", "the left dog", "nothing at all", "a small cat"], 1)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    for name in ("0.png", "1.png"):
        Image.new("RGB", (1000, 1000)).save(tmp_path / name)
    return tmp_path


def evaluated(folder: Path, *words: str) -> dict[str, Any]:
    output = folder / "out.json"
    data = ("--data", str(folder / "rows.jsonl"), "--images", str(folder), "--split", "all")
    assert main(["evaluate", "ref_l4", *data, "--output", str(output), *words]) == 0
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def test_nonets_route_is_asked_once_for_a_picture(server: Server, benchmark: Path) -> None:
    found = evaluated(benchmark, "--endpoint", server.address)
    assert found["metrics"]["Ann-level acc iou 0.9"] == 100
    assert found["answers"] == {"ok": 3, "empty": 1}
    assert found["nothing"] == {"count": 1, "no_box": 1}
    assert sorted(len(body["expressions"]) for _, body in server.seen) == [2, 2]
    written = json.loads((benchmark / "out.predictions.json").read_text())
    assert [each["id"] for each in written] == [1, 2, 3, 4]
    again = evaluated(benchmark, "--predictions", str(benchmark / "out.predictions.json"))
    assert again["metrics"] == found["metrics"]


def test_a_chat_model_is_asked_in_its_familys_words(
    server: Server, benchmark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "secret"
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    words = ("--endpoint", f"{server.address}/v1", "--model", "m", "--family", "cogvlm")
    found = evaluated(benchmark, *words)
    assert found["of"] == "m:cogvlm"
    assert found["metrics"]["Ann-level acc iou 0.9"] == 100
    assert found["answers"] == {"ok": 3, "unparsed": 1}
    paths = {path for path, _ in server.seen}
    assert paths == {"/v1/chat/completions"}
    said = server.seen[0][1]["messages"][0]["content"][1]["text"]
    assert said.startswith("Where is ")
    assert server.seen[0][1]["model"] == "m"


def test_a_run_goes_on_with_what_has_no_answer(server: Server, benchmark: Path) -> None:
    answers = benchmark / "kept.jsonl"
    done = [{"id": number, "box": [1, 2, 3, 4], "status": "ok", "said": ""} for number in (1, 2)]
    failed = {"id": 3, "box": None, "status": "failed", "said": "503"}
    lines = [json.dumps(each) for each in (*done, failed)]
    answers.write_text("\n".join(lines) + '\n{"id": 4, "bo')
    found = evaluated(benchmark, "--endpoint", server.address, "--answers", str(answers))
    asked = [each for _, body in server.seen for each in body["expressions"]]
    assert sorted(asked) == ["a small cat", "nothing at all"]
    assert found["metrics"]["Ann-level acc iou 0.5"] == pytest.approx(100 / 3)


def test_a_busy_endpoint_is_asked_again_and_a_dead_one_fails_in_words(server: Server, tmp_path: Path) -> None:
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    rows = [Annotation(1, "a cup", (0, 0, 1, 1), image="x.png")]

    async def run(address: str, name: str) -> Any:
        def picture_of(row: Annotation) -> Picture:
            return read_picture(tmp_path / row.image)

        async with httpx.AsyncClient(base_url=address) as client:
            return await drive(
                NonetEndpoint(client), rows, picture_of, tmp_path / name, attempts=3, wait=wait
            )

    server.failing = 2
    busy = asyncio.run(run(server.address, "busy.jsonl"))
    assert busy.statuses == {"ok": 1}
    assert waited == [1.0, 2.0]
    server.failing = 3
    dead = asyncio.run(run(server.address, "dead.jsonl"))
    assert dead.statuses == {"failed": 1}
    assert dead.predictions[0].box == NO_BOX
    server.key = "other"
    refused = asyncio.run(run(server.address, "refused.jsonl"))
    assert refused.statuses == {"failed": 1}
    assert "no key" in (tmp_path / "refused.jsonl").read_text()


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (("--endpoint", "http://localhost:1"), "--images"),
        (("--endpoint", "http://localhost:1", "--images", ".", "--family", "gpt9"), "--family is one of"),
        (("--predictions", "absent.json"), "cannot be read as JSON"),
        (("--predictions", "absent.json", "--split", "train"), "the split is one of"),
    ],
)
def test_what_is_missing_is_said_in_a_line(
    words: tuple[str, ...], needle: str, benchmark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["evaluate", "ref_l4", "--data", str(benchmark / "rows.jsonl"), "--split", "val", *words])
    assert status != 0
    assert needle in capsys.readouterr().err


def test_only_a_benchmark_takes_an_endpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "fasternet", "--endpoint", "http://localhost:1"]) == 2
    assert "ref_l4" in capsys.readouterr().err


def test_the_baselines_need_no_endpoint(data_root: Path, tmp_path: Path) -> None:
    output = tmp_path / "baselines.json"
    words = ["evaluate", "ref_l4", "--data", str(data_root / "rec_photos"), "--output", str(output)]
    assert main(words) == 0
    found = json.loads(output.read_text())["baselines"]
    named = found["name and place among the given boxes"]
    assert named["template"]["acc50"] >= 90
    assert named["human"]["acc50"] > found["largest given box"]["human"]["acc50"] + 10


def test_the_benchmark_is_found_by_its_papers_name_and_trains_nothing(
    data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "ref-l4", "--data", str(data_root / "rec_photos")]) == 0
    assert "name and place" in capsys.readouterr().out
    assert main(["train", "ref_l4"]) == 2
    assert "nothing to train" in capsys.readouterr().err
