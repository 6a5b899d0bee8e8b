"""``attnprobe view``: the explorer in a browser."""

import os
import secrets
import sys
import threading
import webbrowser
from bisect import bisect_left
from collections.abc import Sequence
from getpass import getuser
from pathlib import Path
from socket import gethostname
from urllib.parse import quote

import click

from attnprobe.cli.output import Output
from attnprobe.cli.output import command as shared
from attnprobe.cli.show import parse_head, pick
from attnprobe.run import Run, open_run

REMOTE = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY")
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


@click.command("view")
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RUN [RUN...]")
@click.option(
    "--port", default=0, type=click.IntRange(0, 65535), help="Of this machine; any free one if 0.  [default: 0]"
)
@click.option("--no-browser", is_flag=True, help="Open no browser, only print the link.")
@click.option("--sample", metavar="I", help="Open this sample of the first RUN, by its id or place.")
@click.option("--head", metavar="L.H", help="Open the map of this head of the first RUN.")
@shared
def command(
    out: Output, runs: tuple[Path, ...], port: int, no_browser: bool, sample: str | None, head: str | None
) -> None:
    """Explore RUNs in a browser, until Ctrl-C: every layer and head, from the whole map to single weights.

    Only this machine can reach it, with the link that is printed; it holds a key. On a remote machine, the line that is
    printed below it brings the port to yours.

    \b
    attnprobe view runs/book
    attnprobe view runs/book --head 3.1
    attnprobe view runs/float32 runs/float16
    """  # noqa: D301 (click wants the backspace itself)
    from attnprobe.explorer.answers import Answers
    from attnprobe.explorer.server import HERE, listen, serve

    opened = [open_run(run) for run in runs]
    hash_ = first_look(opened[0], sample, head)
    answers = Answers.of(opened)
    with listen(port) as taken:
        number, token = taken.getsockname()[1], secrets.token_urlsafe(32)
        url = f"http://{HERE}:{number}/?token={token}{hash_}"
        ssh = f"ssh -L {number}:{HERE}:{number} {getuser()}@{gethostname()}"
        out.data({"url": url, "pid": os.getpid(), "ssh": ssh}, url)
        out.note(f"from another machine, first: {ssh}")
        out.note("Ctrl-C ends it")
        if not no_browser and can_show():
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        try:
            serve(answers, token, taken)
        except KeyboardInterrupt:  # is how it ends
            out.note("ended")


def first_look(run: Run, sample: str | None, head: str | None) -> str:
    """The part of the link behind ``#`` that opens a sample and a head; empty where the explorer chooses.

    Raises
    ------
    NotKept
        If they are not in the run.
    SelectionError
        If `head` is none.
    """
    if sample is None and head is None:
        return ""
    chosen = pick(run, sample) if sample is not None or not run.samples else run.sample(0)
    place = bisect_left(run.samples, chosen.sample.index, key=lambda one: one.index)
    state: list[tuple[str, str | int]] = [("sample", place)] if place else []
    if head is not None:
        layer, number = parse_head(head, [site.key for site in run.sites])
        found = chosen[layer, number]
        state = [("view", "map"), *state, ("site", found.site.key), ("head", found.number)]
    return _hash(state)


def _hash(state: Sequence[tuple[str, str | int]]) -> str:
    parts = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in state)
    return f"#{parts}" if parts else ""


def can_show() -> bool:
    """Whether a browser that is opened here is one that the user sees."""
    if any(os.environ.get(name) for name in REMOTE):
        return False
    return sys.platform == "darwin" or any(os.environ.get(name) for name in DISPLAYS)
