"""An application as a user writes it: FastAPI, with a lifespan, middleware, a socket and a front end at /."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from fastapi import APIRouter, BackgroundTasks, FastAPI, Request, Response, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel


def note(word: str) -> None:
    if "LIFESPAN" in os.environ:
        with Path(os.environ["LIFESPAN"]).open("a") as file:
            file.write(f"{word} {os.getpid()}\n")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, str]]:
    note("started")
    yield {"greeting": "hello"}
    note("stopped")


app = FastAPI(lifespan=lifespan)
done = anyio.Event()


@app.middleware("http")
async def stamp(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    if request.headers.get("x-turn-away"):
        return PlainTextResponse("turned away", 418)
    response = await call_next(request)
    response.headers["x-stamp"] = "mine"
    return response


class Run(BaseModel):
    """Has the name of a shape of the API."""

    mine: bool


@app.get("/hello", summary="Say hello.")
async def hello(request: Request) -> dict[str, Any]:
    return {
        "greeting": request.state.greeting,
        "env": os.environ.get("FROM_MANIFEST"),
        "knows_langgraph": "langgraph" in sys.modules,
        "url": request.url_for("hello").path,
    }


@app.get("/info")
async def info() -> Run:
    return Run(mine=True)


@app.post("/threads/count")
async def count() -> int:
    return -1


@app.get("/threads")  # of which ours is POST
async def threads() -> str:
    return "all of them"


@app.get("/boom")
async def boom() -> None:
    raise ValueError("boom")


@app.get("/parts")
async def parts() -> StreamingResponse:
    async def each() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d\n" % number

    return StreamingResponse(each())


@app.post("/later")
async def later(tasks: BackgroundTasks) -> None:
    tasks.add_task(done.set)


@app.get("/later")
async def was_done() -> bool:
    await done.wait()
    return True


@app.websocket("/socket")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(socket.state.greeting + " " + await socket.receive_text())
    await socket.close()


more = APIRouter(prefix="/more")


@more.get("/items/")
async def items() -> list[str]:
    return ["item"]


@more.get("/{rest:path}")
async def front_end(rest: str) -> PlainTextResponse:
    return PlainTextResponse(f"page {rest}")


app.include_router(more)


@app.get("/{rest:path}")
async def anything(rest: str) -> PlainTextResponse:
    return PlainTextResponse(f"front end {rest}")
