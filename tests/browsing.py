"""A real Chromium on a real server, for tests of the explorer."""

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Nothing but the server is asked for, and nothing is drawn by a GPU.
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TOKEN = "key-of-a-test"
APP = "document.querySelector('.attnprobe')?.app"


def missing() -> str | None:
    """Why there is no browser here; None if there is one."""
    if CHROMIUM is None:
        return "there is no Chromium here"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed: pip install attnprobe[browser]"
    return None


@contextmanager
def served(runs: Sequence[Path]) -> Iterator[str]:
    """Serve runs from a thread; gives the address of the page."""
    from attnprobe.explorer.answers import Answers
    from attnprobe.explorer.server import HERE, listen, server
    from attnprobe.run import open_run

    taken = listen(0)
    port = taken.getsockname()[1]
    running = server(Answers.of([open_run(run) for run in runs]), TOKEN, taken)
    thread = threading.Thread(target=lambda: running.run(sockets=[taken]), daemon=True)
    thread.start()
    try:
        yield f"http://{HERE}:{port}/?token={TOKEN}"
    finally:
        running.should_exit = True
        thread.join(20)
        taken.close()


@contextmanager
def browser() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        yield running
        running.close()


def _is_wrong(said: Any) -> bool:
    """An error or a warning, but for one that only tests bring about: they read pixels back."""
    return said.type in ("error", "warning") and "willReadFrequently" not in said.text


@contextmanager
def page(running: Any, url: str, width: int = 1200, height: int = 860, **more: Any) -> Iterator[Any]:
    """A page; at its end, what went wrong in it is an error here: its console, its scripts, what it was not given."""
    context = running.new_context(viewport={"width": width, "height": height}, **more)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("console", lambda said: wrong.append(said.text) if _is_wrong(said) else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("response", lambda got: wrong.append(f"{got.status} {got.url}") if got.status >= 400 else None)
    opened.goto(url)
    yield opened
    context.close()
    assert not wrong, wrong


def settled(opened: Any, seconds: float = 60) -> None:
    """Wait until nothing is waited for, and is not a moment later."""
    quiet, end = 0, time.monotonic() + seconds
    while quiet < 4:
        quiet = quiet + 1 if opened.evaluate(f"() => Boolean({APP}?.settled())") else 0
        assert time.monotonic() < end, opened.locator("body").inner_text()[:500]
        opened.wait_for_timeout(50)


def state(opened: Any) -> dict[str, Any]:
    """What is looked at."""
    found: dict[str, Any] = opened.evaluate(f"() => {APP}.state")
    return found
