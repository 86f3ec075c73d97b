"""One call of a webhook: a POST over a connection of its own, to exactly the place that was judged."""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
from collections.abc import Mapping

import httpx

from nonet.jobs.webhook_policy import Target


async def post(target: Target, headers: Mapping[str, str], body: bytes, seconds: float) -> str:
    """Send ``body`` once, within ``seconds``; why that failed, "" if it was taken.

    The transport alone: a client would write the URL, which may hold a secret, to the log, and has redirects,
    cookies and the environment's proxies to be kept from using.
    """
    # Byte for byte what was judged: no second reading of the URL can differ.
    request = httpx.Request(
        "POST",
        httpx.URL(scheme="https" if target.secure else "http", host=target.host, port=target.port),
        headers={"Host": target.authority, **headers},
        content=body,
        extensions={"target": target.path.encode()},
    )
    try:
        async with asyncio.timeout(seconds):
            trust = await asyncio.to_thread(_trust)
            async with httpx.AsyncHTTPTransport(verify=trust, trust_env=False) as transport:
                status = (await transport.handle_async_request(request)).status_code
    except TimeoutError:
        return f"no answer within {seconds:g} seconds"
    except (httpx.ProtocolError, httpx.ReadError):
        return "the answer is not HTTP"
    except httpx.TransportError as error:
        return _unreachable(error)
    return "" if 200 <= status <= 299 else f"the receiver answered {status}"


def _unreachable(error: BaseException) -> str:
    """Why there is no connection, as the system says it: somewhere behind the library's own error."""
    cause: BaseException | None = error
    known = ""
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, OSError):
            known = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror or known
        cause = cause.__cause__ or cause.__context__
    return f"the receiver cannot be reached: {known or 'no connection'}"


@functools.cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()
