"""Case 77, webhooks: signed, tried again while the target is down, then dead letters, only where allowed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.building_gateway import (
    BUILDINGS,
    job_of,
    settle,
    submit,
    submitted,
    toy_settings,
    under_way,
    upload,
    wait_for,
)
from tests.support.running_server import RunningServer, assert_refused, eventually, free_port
from tests.support.webhook_receiver import Receiver

pytestmark = pytest.mark.timeout(300)

Start = Callable[..., RunningServer]
SECRET = "a secret of the tests"


def hooked(*hosts: str, **jobs: Any) -> dict[str, dict[str, Any]]:
    """Settings with webhooks to ``hosts`` that are tried again at once."""
    quick = {"webhook_secret": SECRET, "webhook_backoff": 0.05, **jobs}
    return toy_settings(webhook_hosts=list(hosts), **quick)


def webhook_is(server: RunningServer, job: str, state: str) -> dict[str, Any]:
    """The webhook of a job, once it is in this state."""
    eventually(lambda: job_of(server, job)["webhook"]["state"] == state, f"the webhook is {state}", 90.0)
    found: dict[str, Any] = job_of(server, job)["webhook"]
    return found


def test_case_77_the_end_of_a_job_is_told_and_signed(start_server: Start, own_repository: Path) -> None:
    with Receiver() as receiver:
        server = start_server(own_repository, hooked(receiver.host))
        job = submitted(server, "quick_1", webhook=receiver.url)
        assert webhook_is(server, job, "delivered") == {
            "state": "delivered",
            "attempts": 1,
            "last_error": None,
        }
        (letter,) = receiver.letters
        assert letter.path == "/hook?of=me"
        assert letter.headers["Content-Type"] == "application/json"
        assert letter.signed_with(SECRET)
        assert not letter.signed_with("another")
        told = letter.job
        assert (told["id"], told["state"]) == (job, "succeeded")
        assert told["result"]["building"] == "quick_1"
        now = job_of(server, job)
        assert {**told, "webhook": None} == {**now, "webhook": None}
        eventually(lambda: server.metric("nonet_webhooks", state="delivered") == 1, "it is counted")
        # A job without one says so, and nobody is told of it.
        other = wait_for(server, submitted(server, "quick_2"), "succeeded")
        assert other["webhook"] is None


def test_case_77_failed_and_cancelled_jobs_are_told_too(start_server: Start, own_repository: Path) -> None:
    with Receiver() as receiver:
        server = start_server(own_repository, hooked(receiver.host))
        failed = submitted(server, "refused_1", webhook=receiver.url)
        webhook_is(server, failed, "delivered")
        running = submitted(server, "slow_1", webhook=receiver.url)
        waiting = submitted(server, "slow_2", webhook=receiver.url)
        under_way(server, running)
        for job in (waiting, running):
            server.http.delete(f"/v1/jobs/{job}")
            webhook_is(server, job, "delivered")
        told = {letter.job["id"]: letter.job for letter in receiver.letters}
        assert {job: found["state"] for job, found in told.items()} == {
            failed: "failed",
            running: "cancelled",
            waiting: "cancelled",
        }
        assert told[failed]["error"]["param"] == "labelled"


def test_case_77_a_target_that_was_down_gets_the_same_letter_later(
    start_server: Start, own_repository: Path
) -> None:
    port = free_port()
    server = start_server(own_repository, hooked(f"127.0.0.1:{port}", webhook_attempts=100))
    job = submitted(server, "quick_1", webhook=f"http://127.0.0.1:{port}/")
    wait_for(server, job, "succeeded")  # the job ends whatever becomes of its webhook
    eventually(lambda: job_of(server, job)["webhook"]["last_error"], "an attempt has failed")
    assert "cannot be reached" in job_of(server, job)["webhook"]["last_error"]
    with Receiver(lambda number: 204 if number else 503, port=port) as receiver:
        found = webhook_is(server, job, "delivered")
        assert found["attempts"] >= 3
        first, second = receiver.letters
        assert first.id == second.id
        assert first.signed_with(SECRET)
        assert second.signed_with(SECRET)


def test_case_77_a_target_that_always_fails_ends_as_a_dead_letter(
    start_server: Start, own_repository: Path
) -> None:
    with Receiver(lambda _: 500) as receiver:
        server = start_server(own_repository, hooked(receiver.host, webhook_attempts=3))
        job = submitted(server, "quick_1", webhook=receiver.url)
        assert webhook_is(server, job, "dead") == {
            "state": "dead",
            "attempts": 3,
            "last_error": "the receiver answered 500",
        }
        settle(1.5)
        assert len(receiver.letters) == 3
        assert len({letter.id for letter in receiver.letters}) == 1
        eventually(lambda: server.metric("nonet_webhooks", state="dead") == 1, "it is counted")
        assert f"job {job}: its webhook is a dead letter after 3 attempts" in server.log
        assert job_of(server, job)["state"] == "succeeded"


def test_case_77_redirects_are_not_followed(start_server: Start, own_repository: Path) -> None:
    with Receiver() as inner, Receiver(lambda _: 307, location=inner.url) as receiver:
        server = start_server(own_repository, hooked(receiver.host, webhook_attempts=1))
        job = submitted(server, "quick_1", webhook=receiver.url)
        assert webhook_is(server, job, "dead")["last_error"] == "the receiver answered 307"
        assert inner.letters == []


def test_case_77_a_target_that_never_answers_holds_nothing_up(
    start_server: Start, own_repository: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        server = start_server(own_repository, hooked(host, webhook_attempts=1, webhook_timeout=1.0))
        job = submitted(server, "quick_1", webhook=f"http://{host}/")
        wait_for(server, job, "succeeded")
        assert webhook_is(server, job, "dead")["last_error"] == "no answer within 1 seconds"


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_case_77_a_webhook_survives_the_gateway(own_repository: Path, tmp_path: Path, killed: bool) -> None:
    port = free_port()
    settings = hooked(f"127.0.0.1:{port}", webhook_attempts=100)
    server = RunningServer(own_repository, tmp_path / "server", settings)
    try:
        job = submitted(server, "quick_1", webhook=f"http://127.0.0.1:{port}/")
        wait_for(server, job, "succeeded")
        eventually(lambda: job_of(server, job)["webhook"]["last_error"], "an attempt has failed")
        if not killed:
            assert server.stop() == 0
    finally:
        server.kill()
    after = RunningServer(own_repository, tmp_path / "server", settings)
    try:
        with Receiver(port=port) as receiver:
            webhook_is(after, job, "delivered")
            (letter,) = receiver.letters
            assert letter.job["id"] == job
            assert letter.signed_with(SECRET)
            assert after.stop() == 0
    finally:
        after.kill()


def test_case_77_a_gateway_killed_while_it_sends_sends_again(own_repository: Path, tmp_path: Path) -> None:
    """Nobody knows whether the letter was taken: it comes once more, under the same id."""
    killed = threading.Event()

    def answer(number: int) -> int:
        if number == 0:
            killed.wait(60)
        return 204

    with Receiver(answer) as receiver:
        settings = hooked(receiver.host, webhook_timeout=5.0)
        server = RunningServer(own_repository, tmp_path / "server", settings)
        try:
            job = submitted(server, "refused_1", webhook=receiver.url)
            eventually(lambda: receiver.letters, "a letter is on its way")
        finally:
            server.kill()
            killed.set()
        after = RunningServer(own_repository, tmp_path / "server", settings)
        try:
            assert webhook_is(after, job, "delivered")["attempts"] >= 2
            assert len(receiver.letters) >= 2
            assert len({letter.id for letter in receiver.letters}) == 1
            assert after.stop() == 0
        finally:
            after.kill()


def test_case_77_two_gateways_send_one_letter(
    start_server: Start, own_repository: Path, tmp_path: Path
) -> None:
    with Receiver() as receiver:
        settings = hooked(receiver.host, path=str(tmp_path / "shared"))
        one, two = (start_server(own_repository, settings) for _ in range(2))
        jobs = [
            submitted(one if number % 2 else two, f"refused_{number}", webhook=receiver.url)
            for number in range(6)
        ]
        for job in jobs:
            webhook_is(two, job, "delivered")
        settle(1.5)
        assert sorted(letter.job["id"] for letter in receiver.letters) == sorted(jobs)


def test_case_77_only_what_the_operator_allows_is_called(start_server: Start, own_repository: Path) -> None:
    with Receiver() as receiver:
        port = receiver.host.partition(":")[2]
        server = start_server(own_repository, hooked(receiver.host))
        for url in (
            "http://127.0.0.1/",
            f"http://localhost:{port}/",
            f"http://127.0.0.1.example.com:{port}/",
            "http://169.254.169.254/latest/meta-data",
        ):
            reply = submit(server, "quick_1", webhook=url)
            assert_refused(reply, 400, "jobs.webhook_hosts")
            assert reply.json()["error"]["param"] == "webhook"
        for url in (
            f"ftp://127.0.0.1:{port}/",
            "file:///etc/passwd",
            f"http://me:secret@127.0.0.1:{port}/",
            f"http://127.0.0.1:{port}\\@example.com/",
            f"http://127.0.0.1:{port}/\r\nX: y",
            "http://[::1/",
            "http:///path",
            "nonsense",
        ):
            reply = submit(server, "quick_1", webhook=url)
            assert_refused(reply, 400, "webhook")
            assert reply.json()["error"]["param"] == "webhook"
        assert_refused(submit(server, "quick_1", webhook=5), 422, "webhook")
        assert server.http.get("/v1/jobs").json()["data"] == []
        assert receiver.letters == []


def test_case_77_webhooks_are_off_unless_the_operator_allows_hosts(
    start_server: Start, own_repository: Path
) -> None:
    server = start_server(own_repository, toy_settings())
    assert_refused(submit(server, "quick_1", webhook="http://127.0.0.1/"), 400, "off", "jobs.webhook_hosts")


def test_case_77_hosts_without_a_secret_stop_the_start(own_repository: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"jobs\.webhook_secret"):
        RunningServer(own_repository, tmp_path / "server", toy_settings(webhook_hosts=["example.com"]))


def test_case_77_a_webhook_is_part_of_the_request_under_a_key(
    start_server: Start, own_repository: Path
) -> None:
    """Also as a field of a form and of a query."""
    with Receiver() as receiver:
        server = start_server(own_repository, hooked(receiver.host))
        first = submit(server, "quick_1", "key-1", webhook=receiver.url)
        again = submit(server, "quick_1", "key-1", webhook=receiver.url)
        assert first.json()["job"]["id"] == again.json()["job"]["id"]
        assert_refused(submit(server, "quick_1", "key-1"), 409, "Idempotency-Key")
        assert_refused(submit(server, "quick_1", "key-1", webhook=receiver.url + "x"), 409)
        body = upload("quick_1")
        fields = {
            "building": "quick_1",
            "labelled": '{"scan": "a", "floor": "B1"}',
            "webhook": receiver.url,
        }
        scans = (
            "id,transmitter,rssi\n"
            + "".join(
                f"{scan['id']},{name},{level}\n"
                for scan in body["scans"]
                for name, level in scan["rssi"].items()
            )
        ).encode()
        form = server.http.post(BUILDINGS, data=fields, files={"scans": ("scans.csv", scans)})
        alone = server.http.post(
            BUILDINGS, params=fields, content=scans, headers={"Content-Type": "text/csv"}
        )
        for reply in (first, form, alone):
            assert reply.status_code == 202, reply.text
            webhook_is(server, reply.json()["job"]["id"], "delivered")
        assert len(receiver.letters) == 3
