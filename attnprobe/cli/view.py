"""``attnprobe view``: the explorer in a browser."""

import os
import secrets
import sys
import threading
import webbrowser
from getpass import getuser
from pathlib import Path
from socket import gethostname

import click

from attnprobe.cli.output import Output
from attnprobe.cli.output import command as shared
from attnprobe.cli.show import parse_head, pick
from attnprobe.explorer.state import link, looking_at, place_of
from attnprobe.run import open_run

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

    answers = Answers.of(runs)
    look = first_look(runs[0], sample, head)
    with listen(port) as taken:
        number, token = taken.getsockname()[1], secrets.token_urlsafe(32)
        url = f"http://{HERE}:{number}/?token={token}{look}"
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


def first_look(run: Path, sample: str | None, head: str | None) -> str:
    """The part of the link behind ``#`` that opens a sample and a head; empty where the explorer chooses."""
    if sample is None and head is None:
        return ""
    opened = open_run(run)
    place = 0 if sample is None and opened.samples else place_of(opened, pick(opened, sample).sample)
    layer, number = (None, None) if head is None else parse_head(head, [site.key for site in opened.sites])
    return link(looking_at(opened, place, layer, number))


def can_show() -> bool:
    """Whether a browser that is opened here is one that the user sees."""
    if any(os.environ.get(name) for name in REMOTE):
        return False
    return sys.platform == "darwin" or any(os.environ.get(name) for name in DISPLAYS)
