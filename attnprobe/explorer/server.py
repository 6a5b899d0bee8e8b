"""The explorer's server: the page, and answers to what it asks, for this machine alone."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    from attnprobe.explorer.guard import ASK, HEADERS, Guard
except ImportError as error:
    from attnprobe.errors import AttnprobeError

    raise AttnprobeError("the explorer needs a server: pip install attnprobe[viewer]") from error

from attnprobe.errors import AttnprobeError
from attnprobe.explorer.answering import Answering
from attnprobe.explorer.static import TYPES, static, suffix

HERE = "127.0.0.1"
THREADS = 8  # questions that are answered at once; a browser asks six at a time
PAGE = "page.html"
GONE = 499  # a client that did not wait for its answer; nobody reads this
ENDS = 503
PATIENCE = 1  # seconds that open connections are given at the end
_log = logging.getLogger(__name__)


def build(answers: Answering, token: str, port: int) -> Starlette:
    """The server's app.

    Parameters
    ----------
    answers
        What answers.
    token
        The key that a client has to give.
    port
        Under which it is served.
    """
    limiter = asyncio.Semaphore(THREADS)

    async def ask(request: Request) -> Response:
        name, params = request.path_params["name"], dict(request.query_params)
        async with limiter:
            if await request.is_disconnected():  # who pans quickly leaves many questions behind
                return Response(status_code=GONE)
            try:
                frame = await _in_thread(partial(answers.ask, name, params))
            except asyncio.CancelledError:  # the server ends
                return Response(status_code=ENDS)
        return Response(frame, media_type="application/octet-stream")

    routes = [_file("/" if name == PAGE else f"/{name}", name, text) for name, text in static().items()]
    app = Starlette(
        routes=[*routes, Route(ASK + "{name}", ask, methods=["GET"])],
        middleware=[Middleware(Guard, token=token, port=port)],
        exception_handlers={404: _missing, Exception: _failed},
    )
    app.router.redirect_slashes = False
    return app


async def _in_thread(work: Callable[[], bytes]) -> bytes:
    """Wait for what a thread does. It is a daemon: at Ctrl-C nobody waits for what nobody will see."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def settle(result: bytes | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None and result is not None:
            done.set_result(result)
        else:
            done.set_exception(error or TypeError("an answer is bytes"))

    def run() -> None:
        outcome: tuple[bytes | None, BaseException | None]
        try:
            outcome = work(), None
        except Exception as error:
            outcome = None, error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, daemon=True).start()
    return await done


def _file(path: str, name: str, text: str) -> Route:
    """One file, as it was read at the start: nothing that a client sends is looked for on the disk."""
    body, kind = text.encode(), TYPES[suffix(name)]

    async def give(request: Request) -> Response:
        return Response(body, headers={"Content-Type": kind})

    return Route(path, give, methods=["GET"])


async def _missing(request: Request, error: Exception) -> Response:
    return PlainTextResponse("there is no such page\n", 404)


async def _failed(request: Request, error: Exception) -> Response:
    """Starlette gives this outside of the guard, which would have added the headers."""
    _log.error("%s failed", request.url.path, exc_info=error)
    return PlainTextResponse("the server failed; its terminal says why\n", 500, HEADERS)


def listen(port: int = 0) -> socket.socket:
    """Take a port of this machine's own address; any free one if 0.

    Raises
    ------
    AttnprobeError
        If it is taken, or not to be had.
    """
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        taken.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # connections of one that has ended are no hindrance
        taken.bind((HERE, port))
        taken.listen(128)
    except (OSError, OverflowError) as error:
        taken.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise AttnprobeError(
            f"port {port} is not to be had ({reason}); choose another, or any free one: --port 0"
        ) from error
    return taken


def serve(answers: Answering, token: str, taken: socket.socket) -> None:
    """Answer on a port that `listen` took, until Ctrl-C or SIGTERM.

    Raises
    ------
    KeyboardInterrupt
        At Ctrl-C, once connections are closed.
    """
    server(answers, token, taken).run(sockets=[taken])


def server(answers: Answering, token: str, taken: socket.socket) -> uvicorn.Server:
    """What `serve` runs; ``run(sockets=[taken])`` ends once its `should_exit` is true."""
    config = uvicorn.Config(
        build(answers, token, taken.getsockname()[1]),
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_level="critical",  # it would tell of clients that are cut off at the end, as of errors
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=PATIENCE,
    )
    return uvicorn.Server(config)
