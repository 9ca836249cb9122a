"""A user's own application that lets nobody in, as one that asks for a key would."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

app = FastAPI()


@app.middleware("http")
async def refuse(request: Request, call_next: object) -> Response:
    if request.headers.get("x-key") == "known" or request.url.path.endswith("/ok"):
        answer: Response = await call_next(request)  # type: ignore[operator]
        return answer
    return Response(status_code=403)
