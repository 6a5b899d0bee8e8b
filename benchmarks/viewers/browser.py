"""A page in headless Chromium: bytes, seconds until it shows something, and frames while a pointer moves over it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZE = {"width": 1200, "height": 800}
# What BertViz loads from a CDN, from npm's packages: the nearest versions that these have.
SCRIPTS = {
    "d3.min": ("d3@5.7.0", "dist/d3.min.js"),
    "jquery.min": ("jquery@2.2.4", "dist/jquery.min.js"),
    "require.min": ("requirejs@2.3.6", "require.js"),
}
MOVES = 40

# Milliseconds between frames, while the pointer moves.
_FRAMES = """() => {
  const at = [];
  window.__frames = at;
  let last = performance.now();
  function next(now) {
    at.push(now - last);
    last = now;
    if (at.length < 5000) requestAnimationFrame(next);
  }
  requestAnimationFrame(next);
}"""


@dataclass(frozen=True)
class Page:
    """How a viewer's page is known to be ready (a condition in JavaScript), and where the pointer moves."""

    ready: str
    area: str


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; a page that kills it kills only this one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def scripts(folder: Path) -> dict[str, Path]:
    """The files that take the place of a CDN's, by the ends of their addresses."""
    found = {}
    for name, (package, inside) in SCRIPTS.items():
        place = folder / name
        if not place.exists():
            place.mkdir(parents=True)
            subprocess.run(["npm", "pack", "--silent", package], cwd=place, check=True, capture_output=True)
            (packed,) = place.glob("*.tgz")
            subprocess.run(["tar", "xzf", packed.name], cwd=place, check=True)
        found[name] = place / "package" / inside
    return found


def look(address: str, page: Page, files: dict[str, Path], limit: float) -> dict[str, Any]:
    """Open an address, in a process of its own, since a page that is busy holds up whoever waits for it.

    Returns
    -------
    dict
        ``ready`` (seconds), ``frame`` (milliseconds between two frames while the pointer moves: median, p95, largest),
        ``bytes`` (of all that came over a network); or ``ended`` (why it is not ready). Without ``frame``, it was ready
        and then busy for longer than the limit.
    """
    task = {"address": address, "ready": page.ready, "area": page.area, "limit": limit}
    task |= {"files": {name: str(path) for name, path in files.items()}}
    command = [sys.executable, "-m", "benchmarks.viewers.looking", json.dumps(task)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True) as worker:
        try:
            told, _ = worker.communicate(timeout=2 * limit)  # frames are measured after it is ready
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            told, _ = worker.communicate()  # when it was ready, if it was
    late = {"ended": f"not ready in {2 * limit:g} s"}
    found: dict[str, Any] = json.loads(told.splitlines()[-1]) if told else late
    return found


def look_at(browser: Any, address: str, page: Page, files: dict[str, Path], limit: float) -> dict[str, Any]:
    tab = browser.new_page(viewport=SIZE)
    received = [0]

    def serve(route: Any) -> None:
        name = next((name for name in files if name in route.request.url), None)
        route.fulfill(path=files[name]) if name else route.abort()

    def count(response: Any) -> None:
        received[0] += int(response.headers.get("content-length", 0))

    tab.route(lambda url: url.startswith("https://"), serve)
    tab.on("response", count)
    start = time.perf_counter()
    tab.goto(address, timeout=1000 * limit, wait_until="commit")
    while not _is_ready(tab, page):
        if time.perf_counter() - start > limit:
            return {"ended": f"not ready in {limit:g} s"}
        time.sleep(0.02)
    tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    ready = time.perf_counter() - start
    print(json.dumps({"ready": ready, "bytes": received[0]}), flush=True)
    box = tab.locator(page.area).first.bounding_box()
    right, bottom = min(box["x"] + box["width"], SIZE["width"]), min(box["y"] + box["height"], SIZE["height"])
    tab.evaluate(_FRAMES)
    for step in range(MOVES):
        share = (step + 0.5) / MOVES
        tab.mouse.move(box["x"] + share * (right - box["x"]), box["y"] + share * (bottom - box["y"]))
    frames = sorted(tab.evaluate("() => window.__frames"))
    return {
        "ready": ready,
        "bytes": received[0],
        "frame": {
            "median": frames[len(frames) // 2],
            "p95": frames[int(0.95 * (len(frames) - 1))],
            "largest": frames[-1],
        },
    }


def _is_ready(tab: Any, page: Page) -> bool:
    """Asked again and again: Playwright's own waiting needs `eval`, which pages refuse."""
    try:
        return bool(tab.evaluate(f"() => Boolean({page.ready})"))
    except Exception as error:
        if "context was destroyed" in str(error):  # the page leads to another
            return False
        raise


def local(path: Path) -> str:
    """A file's address."""
    return path.resolve().as_uri()


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """A folder for pages, some gigabytes at worst."""
    return tempfile.TemporaryDirectory(prefix="viewers")
