"""``attnprobe view``: what it prints, that it serves, how it ends, and what stops it before it starts."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import torch
from click.testing import CliRunner, Result
from transformers import GPT2Config, GPT2LMHeadModel

import attnprobe as ap
from attnprobe.cli import main, view
from attnprobe.explorer.answering import unpack

pytest.importorskip("uvicorn", reason="the viewer extra is not installed")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two samples of a small GPT-2."""
    path = tmp_path_factory.mktemp("runs") / "small"
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=32)).eval()
    with torch.no_grad(), ap.record(model, to=path) as rec:
        for name in ("first", "second"):
            with rec.sample(id=name):
                model(torch.arange(9)[None])
    return path


def started(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    env |= {"PYTHONPATH": str(ROOT), **environment}
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
    command = [sys.executable, "-m", "attnprobe.cli", "view", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed)


def get(url: str, path: str, key: str = "") -> http.client.HTTPResponse:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
    return connection.getresponse()


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["view", *map(str, arguments)])


def test_it_prints_a_link_that_works_and_ends_at_ctrl_c(run: Path) -> None:
    process = started(run, "--sample", "second", "--head", "1.0")
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        parts = urlsplit(url)
        assert (parts.scheme, parts.hostname, parts.path) == ("http", "127.0.0.1", "/")
        assert parse_qs(parts.fragment) == {
            "view": ["map"], "sample": ["1"], "site": ["transformer.h.1.attn"], "head": ["0"]
        }  # fmt: skip
        assert get(url, f"/?{parts.query}").status == 200
        assert get(url, "/").status == 401
        head, _ = unpack(get(url, "/ask/sample?run=0&sample=1", parse_qs(parts.query)["token"][0]).read())
        assert head["id"] == "second"
        assert [site["key"] for site in head["sites"]] == [f"transformer.h.{layer}.attn" for layer in range(2)]
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    assert f"ssh -L {parts.port}:127.0.0.1:{parts.port} " in told and f"@{socket.gethostname()}" in told
    assert "Traceback" not in told
    with pytest.raises(ConnectionRefusedError):
        get(url, "/")


def test_ctrl_c_does_not_wait_for_who_is_still_connected(run: Path) -> None:
    process = started(run, "--json", "-q")
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while lines[-1].rstrip() != "}":
            lines.append(process.stdout.readline())
        record = json.loads("".join(lines))
        assert record["pid"] == process.pid
        parts = urlsplit(record["url"])
        with socket.create_connection((parts.hostname, parts.port)) as idle:
            idle.sendall(b"GET / HTTP/1.1\r\n")  # and never the rest
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, told) == (0, "")
    assert record["ssh"].startswith(f"ssh -L {parts.port}:127.0.0.1:{parts.port} ")


def test_what_cannot_be_shown_stops_it_before_it_starts(run: Path, tmp_path: Path) -> None:
    for arguments, code, word in (
        ([tmp_path / "nothing"], 1, "nothing"),
        ([run, tmp_path / "nothing"], 1, "nothing"),
        ([run, "--sample", "third"], 2, "third"),
        ([run, "--head", "7.0"], 2, "layer 7"),
        ([run, "--head", "0.9"], 2, "head 9"),
        ([run, "--head", "zero"], 2, "zero"),
    ):
        result = call(*arguments)
        assert (result.exit_code, result.stdout) == (code, "")
        assert result.stderr.startswith("error: ") and word in result.stderr


def test_a_port_that_is_taken_is_an_error(run: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = call(run, "--port", port)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"port {port}" in result.stderr and "--port 0" in result.stderr


def test_without_the_extra_it_says_what_to_install(run: Path) -> None:
    code = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "uvicorn":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from attnprobe.cli import main
main(["view", sys.argv[1]])
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, run], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install attnprobe[viewer]" in done.stderr


@pytest.mark.parametrize(
    ("environment", "platform", "shown"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, "linux", False),
        ({"DISPLAY": "localhost:10.0", "SSH_TTY": "/dev/pts/1"}, "linux", False),
        ({}, "darwin", True),
        ({"SSH_CLIENT": "10.0.0.1 1 22"}, "darwin", False),
    ],
)
def test_a_browser_is_opened_where_somebody_sees_it(
    environment: dict[str, str], platform: str, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*view.REMOTE, *view.DISPLAYS):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert view.can_show() is shown


@pytest.mark.parametrize("option", [(), ("--no-browser",)])
def test_the_browser_gets_the_link_unless_it_is_not_wanted(run: Path, tmp_path: Path, option: tuple[str, ...]) -> None:
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    clean = {name: "" for name in view.REMOTE}
    process = started(run, *option, **clean, DISPLAY=":0", BROWSER=f"{browser} %s")
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        for _ in range(100 if not option else 10):
            if opened.exists():
                break
            time.sleep(0.1)
        assert opened.exists() is not bool(option)
        assert option or opened.read_text().strip() == url
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
