"""A hand-written server: FastAPI, one worker thread for the model, batches of what waits. MODEL PORT"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from fastapi import FastAPI, Request, Response
from session import Model

model = Model(sys.argv[1])
pool = ThreadPoolExecutor(1)
waiting: asyncio.Queue[tuple[bytes, asyncio.Future[bytes]]] = asyncio.Queue()


async def work() -> None:
    """Run what waits, at most 16 at a time."""
    loop = asyncio.get_running_loop()
    while True:
        batch = [await waiting.get()]
        while not waiting.empty() and len(batch) < 16:
            batch.append(waiting.get_nowait())
        answers = await loop.run_in_executor(pool, model.run, [body for body, _ in batch])
        for (_, answer), data in zip(batch, answers, strict=True):
            if not answer.done():
                answer.set_result(data)


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """The worker lives as long as the server."""
    worker = asyncio.create_task(work())
    yield
    worker.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(request: Request) -> Response:
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    waiting.put_nowait((await request.body(), answer))
    return Response(await answer, media_type="application/octet-stream")


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
