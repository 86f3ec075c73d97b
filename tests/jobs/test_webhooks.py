"""What is allowed, how it is signed, when it is sent again, and what the store keeps of it."""

from __future__ import annotations

import hashlib
import hmac
import re
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.jobs import (
    DATABASE,
    Job,
    JobPolicy,
    JobState,
    JobStore,
    NewJob,
    SqliteJobStore,
    Webhook,
    WebhookPolicy,
    WebhookState,
    new_job_id,
)
from nonet.jobs.sqlite_file import SCHEMA_VERSION, STEPS
from nonet.jobs.webhooks import pause, signature
from nonet.runtime.errors import InvalidArgument

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"
URL = "http://receiver:8080/hook"


def ended(store: JobStore, webhook: str = URL) -> Job:
    """A job that was cancelled while it waited."""
    new = NewJob(new_job_id(), "toy", "x", "ann", {}, "d", "", webhook)
    job, _ = store.submit(new, JobPolicy())
    return store.cancel(job.id)


@given(st.binary(min_size=1), st.from_regex(r"[a-z0-9_]{1,40}", fullmatch=True), st.binary())
def test_the_signature_is_the_standard_library_s(secret: bytes, delivery: str, body: bytes) -> None:
    text = delivery.encode() + b".1700000000." + body
    found = signature(secret, delivery, "1700000000", body)
    assert found == "v1=" + hmac.new(secret, text, hashlib.sha256).hexdigest()
    assert signature(secret, delivery, "1700000000", body + b" ") != found
    assert signature(secret, delivery, "1700000001", body) != found


def test_the_documented_check_accepts_what_is_signed_and_nothing_else() -> None:
    (block,) = re.findall(r"^```python webhook\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    scope: dict[str, object] = {}
    exec(block, scope)
    genuine = scope["genuine"]
    assert callable(genuine)
    headers = {
        "Nonet-Webhook-Id": "ended_job_1",
        "Nonet-Webhook-Timestamp": "1700000000",
        "Nonet-Webhook-Signature": signature(b"key", "ended_job_1", "1700000000", b"{}"),
    }
    assert genuine(b"key", headers, b"{}", now=1700000010)
    assert not genuine(b"key", headers, b"{ }", now=1700000010)
    assert not genuine(b"other", headers, b"{}", now=1700000010)
    assert not genuine(b"key", headers, b"{}", now=1700009999)
    assert not genuine(b"key", {**headers, "Nonet-Webhook-Id": "ended_job_2"}, b"{}", now=1700000010)


@given(st.integers(1, 10_000), st.floats(0.01, 1e4), st.floats(0, 1))
def test_pauses_grow_within_their_bounds(attempt: int, backoff: float, share: float) -> None:
    found = pause(attempt, backoff, share)
    assert 0 < found <= 3600
    assert found <= 2 * pause(attempt, backoff, 0.0)
    assert pause(attempt + 1, backoff, share) >= found
    assert pause(1, backoff, 1.0) == min(backoff, 3600)


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        (["example.com"], "https://example.com/a?b=c"),
        (["example.com"], "http://EXAMPLE.com"),
        (["Example.com"], "https://example.com:443/"),
        (["example.com:8443"], "https://example.com:8443/"),
        (["[::1]:9"], "http://[::1]:9/"),
    ],
)
def test_what_is_named_is_allowed(hosts: list[str], url: str) -> None:
    target = WebhookPolicy(tuple(hosts), b"s").target(url)
    assert target.path.startswith("/")
    assert target.secure == url.startswith("https")


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        ([], "https://example.com/"),
        (["example.com"], "https://example.com:8443/"),
        (["example.com"], "http://example.com:443/"),
        (["example.com:8443"], "https://example.com/"),
        (["example.com"], "https://a.example.com/"),
        (["example.com"], "https://example.com./"),
        (["example.com"], "https://example.com@evil.example/"),
        (["example.com"], "https://evil.example#@example.com/"),
        (["example.com"], "https://evil.example\\@example.com/"),
        (["example.com"], "https://example.com:0/"),
        (["example.com"], "https://example.com:99999/"),
        (["example.com"], "https://ex\u0430mple.com/"),
        (["example.com"], "https://example.com/" + "a" * 3000),
        (["127.0.0.1"], "http://2130706433/"),
        (["127.0.0.1"], "file://127.0.0.1/etc/passwd"),
    ],
)
def test_what_is_not_named_is_refused(hosts: list[str], url: str) -> None:
    with pytest.raises(InvalidArgument, match="webhook") as refused:
        WebhookPolicy(tuple(hosts), b"s").target(url)
    assert refused.value.param == "webhook"


@given(st.text(max_size=60))
def test_no_text_is_more_than_refused(url: str) -> None:
    policy = WebhookPolicy(("example.com",), b"s")
    for text in (url, "http://" + url, "https://example.com" + url):
        try:
            target = policy.target(text)
        except InvalidArgument:
            continue
        assert (target.host, target.port) == ("example.com", 443 if target.secure else 80)
        assert not re.search(r"\s", target.path + target.authority)


@pytest.mark.parametrize(
    "wrong", ["", "http://a/", "a/b", "me@a", "a:", "a:x", "a:99999", "a b/c", "::1:9", "a?b"]
)
def test_what_is_no_host_is_no_policy(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"host|port"):
        WebhookPolicy((wrong,), b"s")


def test_a_policy_needs_a_secret_and_keeps_it() -> None:
    with pytest.raises(ValueError, match="secret"):
        WebhookPolicy(("a",))
    assert "hidden" not in repr(WebhookPolicy(("a",), b"hidden"))


def test_a_webhook_from_the_end_of_its_job_to_delivery(store: JobStore) -> None:
    job, _ = store.submit(NewJob(new_job_id(), "toy", "x", "ann", {}, "d", "", URL), JobPolicy())
    assert job.webhook == Webhook(URL)
    assert store.claim_webhook(60) is None  # the job has not ended
    store.cancel(job.id)
    claimed = store.claim_webhook(60)
    assert claimed is not None
    assert (claimed.id, claimed.state) == (job.id, JobState.CANCELLED)
    assert claimed.webhook == Webhook(URL, attempts=1)
    assert store.claim_webhook(60) is None  # another's for a while
    assert store.settle_webhook(job.id, 1, WebhookState.WAITING, error="busy", again_in=-1)
    assert store.get(job.id).webhook == Webhook(URL, attempts=1, error="busy")
    again = store.claim_webhook(60)
    assert again is not None
    assert not store.settle_webhook(job.id, 1, WebhookState.DEAD)  # an older attempt says nothing any more
    assert store.settle_webhook(job.id, 2, WebhookState.DELIVERED)
    assert store.get(job.id).webhook == Webhook(URL, WebhookState.DELIVERED, 2)
    assert not store.settle_webhook(job.id, 2, WebhookState.DEAD)
    assert store.claim_webhook(60) is None
    assert store.get(job.id).revision == again.revision


def test_a_claim_that_nobody_settles_is_due_again(store: JobStore) -> None:
    job = ended(store)
    assert store.claim_webhook(-1) is not None
    second = store.claim_webhook(-1)
    assert second is not None
    assert (second.id, second.webhook) == (job.id, Webhook(URL, attempts=2))


def test_a_clock_that_was_set_back_stops_no_webhook(store: JobStore) -> None:
    ended(store)
    assert store.claim_webhook(1e9) is not None
    assert store.claim_webhook(60) is not None


def test_a_webhook_is_claimed_once_however_many_ask_at_once(make_store: Callable[[], JobStore]) -> None:
    stores = [make_store() for _ in range(4)]
    jobs = sorted(ended(stores[0]).id for _ in range(5))
    found: list[str] = []

    def claim_all(store: JobStore) -> None:
        while (job := store.claim_webhook(60)) is not None:
            found.append(job.id)

    threads = [threading.Thread(target=claim_all, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == jobs


def test_webhooks_are_counted_and_go_with_their_jobs(store: JobStore) -> None:
    jobs = [ended(store) for _ in range(3)]
    ended(store, "")
    store.claim_webhook(60)
    store.settle_webhook(jobs[0].id, 1, WebhookState.DEAD, error="gone")
    assert store.webhook_counts() == {
        WebhookState.WAITING: 2,
        WebhookState.DELIVERED: 0,
        WebhookState.DEAD: 1,
    }
    store.forget(0.0, 1)
    assert sum(store.webhook_counts().values()) == 0


def test_a_file_from_before_there_were_webhooks_goes_on(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / DATABASE) as file:
        file.executescript(STEPS[0])
        file.execute(
            "INSERT INTO jobs (id, kind, subject, tenant, spec, digest, created) "
            "VALUES ('job_1', 'toy', 'x', 'ann', '{}', 'd', 1.0)"
        )
        file.execute("PRAGMA user_version = 1")
    file.close()
    store = SqliteJobStore(tmp_path / DATABASE)
    assert store.get("job_1").webhook is None
    assert ended(store).webhook == Webhook(URL)
    store.close()
    with sqlite3.connect(tmp_path / DATABASE) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    file.close()
