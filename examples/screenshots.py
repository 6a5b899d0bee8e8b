"""The pictures of the explorer in README and docs/explorer.md: a real Chromium looks at two runs of the bundled model.

``python examples/screenshots.py --out docs/images`` (some minutes on two cores; `pip install attnprobe[browser,viewer]`
and Debian's package chromium).
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image, ImageDraw

import attnprobe as ap
from attnprobe import demo

LONG, PERIOD, WINDOW = 9216, 3072, 512
HEAD = "site=h.1.attn&head=6"
ACCENT, PAPER = (255, 138, 101), (11, 13, 18)
# The three stages: what is drawn of the map, where the pointer is, and the line above.
STAGES: list[tuple[str, tuple[int, int] | None, str]] = [
    ("low=0.02", None, "one head, 9,216 × 9,216 weights"),
    ("low=0.002&row=3990&column=919&span=180", None, "180 tokens of it: a line"),
    ("low=0.002&row=3995&column=924&span=15", (4000, 929), ""),
]
STAGE, SCALE, GAP = (374, 400), 1.6, 3  # pixels of the page; of the picture for one of these; between the stages

FOLLOWED = "site=transformer.h.1.attn&head=6"
# File, how wide and high the page is, dark or light, and what the page's link says.
VIEWS = [
    ("heads", 1180, 590, "dark", "color=induction&head=6&site=transformer.h.1.attn"),
    ("lines", 1180, 560, "dark", f"view=lines&{FOLLOWED}&query=905"),
    ("measures", 1180, 760, "light", f"view=measures&{FOLLOWED}&x=previous&y=induction"),
    ("box", 1180, 600, "dark", f"view=map&{FOLLOWED}&box=903,908,849,853&row=900&column=848&span=48&low=0.003"),
]
# The line above a map, or another in its place.
CAPTION = """words => {
  const line = document.querySelector('.ap-map-readout');
  line.style.fontSize = '12.5px';
  if (!words) return;
  const own = line.cloneNode();
  own.textContent = words;
  line.replaceWith(own);
}"""
MAP = "document.querySelector('.ap-map').attnprobe"


def record_short(to: Path) -> None:
    """All heads on as much of the text as the model was trained for."""
    model, tokenizer = demo.load()
    inputs = tokenizer(demo.text(), return_tensors="pt", truncation=True, max_length=1024)
    names = ["default", "induction", "induction.mean"]
    with (
        torch.no_grad(),
        ap.record(model, tokenizer, to=to, keep=[ap.Weights(dtype="float16"), ap.Measures(names=names)]),
    ):
        model(**inputs)


def record_long(to: Path) -> None:
    """A head that looks at what followed last time, on a text that comes three times.

    Positions beyond the model's window are repeated, so its layer 0 cannot tell the token before from those 512
    before that. A mask keeps layer 0 to the last 512 keys, as in models that mix local and global layers; all else is
    the model as it is.
    """
    model, tokenizer = demo.load(positions=LONG)
    ids = torch.tensor(tokenizer(demo.text(), verbose=False).input_ids[:PERIOD]).repeat(LONG // PERIOD)[None]
    back = torch.arange(LONG)[:, None] - torch.arange(LONG)
    local = ((back >= 0) & (back < WINDOW))[None, None]

    def keep_local(_: Any, given: Any, named: dict[str, Any]) -> Any:
        return given, {**named, "attention_mask": local}

    model.transformer.h[0].attn.register_forward_pre_hook(keep_local, with_kwargs=True)
    with torch.no_grad(), ap.record(model.transformer, tokenizer, to=to, keep=ap.Weights("L1H6", dtype="float16")):
        model.transformer(ids, use_cache=False)


@contextmanager
def served(run: Path) -> Iterator[str]:
    """The link of ``attnprobe view``."""
    command = [sys.executable, "-m", "attnprobe.cli", "view", str(run), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def opened(
    browser: Any, url: str, state: str, size: tuple[int, int], without: Sequence[str] = (), **look: Any
) -> Iterator[Any]:
    """A page of the explorer, without some of its parts, once it is drawn."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **look)
    page = context.new_page()
    page.goto(f"{url}#{state}")
    page.wait_for_selector(".ap-tab")
    page.evaluate(
        "names => names.forEach((name) => (document.querySelector(name).style.display = 'none'))", list(without)
    )
    settle(page)
    yield page
    context.close()


def settle(page: Any) -> None:
    """Wait for a while, and for what is seen of maps."""
    page.wait_for_timeout(1500)
    for shown in page.locator(".ap-map:visible").all():
        shown.evaluate("map => map.attnprobe.settled()")


def picture(page: Any) -> Image.Image:
    return Image.open(BytesIO(page.screenshot())).convert("RGB")


def stage(browser: Any, url: str, at: int) -> tuple[Image.Image, dict[str, Any]]:
    """One stage of the zoom, and where on it the map lies."""
    state, cross, words = STAGES[at]
    look: dict[str, Any] = {
        "device_scale_factor": SCALE,
        "color_scheme": "dark",
        "without": (".ap-bar", ".ap-status", ".ap-map-facts"),
    }
    with opened(browser, url, f"view=map&{HEAD}&high=0.6&{state}", STAGE, **look) as page:
        page.evaluate(CAPTION, words)
        settle(page)
        view = page.evaluate(f"() => ({{...{MAP}.view, top: document.querySelector('.ap-map-stage').offsetTop}})")
        if cross:
            page.mouse.move(*on_page(view, *cross))
            settle(page)
        return picture(page), view


def on_page(view: dict[str, Any], query: float, key: float) -> tuple[float, float]:
    """Where on its page the middle of a weight is drawn."""
    x = view["origin"]["x"] + view["area"]["width"] / 2 + (key + 0.5 - view["column"]) * view["pixels"]
    y = view["origin"]["y"] + view["area"]["height"] / 2 + (query + 0.5 - view["row"]) * view["pixels"]
    return x, y + view["top"]


def corners(view: dict[str, Any]) -> tuple[float, float, float, float]:
    """The left, top, right and bottom of a map on its page."""
    left, top = view["origin"]["x"], view["origin"]["y"] + view["top"]
    return left, top, left + view["area"]["width"], top + view["area"]["height"]


def zoom(browser: Any, url: str) -> Image.Image:
    """The stages side by side; on each, what the next one shows."""
    stages = [stage(browser, url, at) for at in range(len(STAGES))]
    width, height = stages[0][0].size
    whole = Image.new("RGB", (len(stages) * (width + GAP) - GAP, height), PAPER)
    for at, (image, _) in enumerate(stages):
        whole.paste(image, (at * (width + GAP), 0))
    pen = ImageDraw.Draw(whole, "RGBA")
    for at, ((_, view), (_, following)) in enumerate(pairwise(stages)):
        down, across = (following["area"][side] / following["pixels"] / 2 for side in ("height", "width"))
        left, top = on_page(view, following["row"] - down, following["column"] - across)
        right, bottom = on_page(view, following["row"] + down, following["column"] + across)
        start = at * (width + GAP)
        box = [start + left * SCALE, top * SCALE, start + right * SCALE, bottom * SCALE]
        to = [side * SCALE for side in corners(following)]
        for ours, theirs in ((box[1], to[1]), (box[3], to[3])):
            pen.line((box[2], ours, start + width + GAP + to[0], theirs), fill=(*ACCENT, 110), width=2)
        pen.rectangle(box, outline=(*ACCENT, 255), width=2)
    return whole


def save(image: Image.Image, file: Path) -> None:
    """Write it with the colours that it needs most."""
    image.quantize(160, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(file, optimize=True)
    click.echo(f"{file}: {image.width} x {image.height}, {file.stat().st_size / 1000:.0f} kB")


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path(), show_default=True)
@click.option("--runs", type=click.Path(path_type=Path, file_okay=False), help="Keep the runs there, or take them.")
@click.option("--only", multiple=True, help="zoom, or the name of a view.")
def main(out: Path, runs: Path | None, only: tuple[str, ...]) -> None:
    """Record, look, and write."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as started:
        runs = runs or Path(scratch)
        for name, record in (("short", record_short), ("long", record_long)):
            if not (runs / name).exists():
                record(runs / name)
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--disable-gpu", "--no-sandbox"]
        )
        if not only or "zoom" in only:
            with served(runs / "long") as url:
                save(zoom(browser, url), out / "explorer-zoom.png")
        with served(runs / "short") as url:
            for name, width, height, scheme, state in VIEWS:
                if only and name not in only:
                    continue
                with opened(
                    browser, url, state, (width, height), device_scale_factor=1.15, color_scheme=scheme
                ) as page:
                    save(picture(page), out / f"explorer-{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
