"""The explorer's server over real sockets: who gets an answer, who is refused, and what is never looked for."""

import http.client
import json
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import attnprobe.show
from attnprobe.errors import AttnprobeError

pytest.importorskip("uvicorn", reason="the viewer extra is not installed")
pytest.importorskip("starlette", reason="the viewer extra is not installed")

from attnprobe.explorer.server import THREADS, listen, server

TOKEN = "the-key_of-this-server"
STATIC = Path(attnprobe.show.__file__).parent / "static"


@dataclass
class Asked:
    """Answers with what it was asked; "wait" is answered once the test allows it."""

    allowed: threading.Event = field(default_factory=threading.Event)
    waiting: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    names: list[str] = field(default_factory=list)

    def ask(self, name: str, params: Mapping[str, str]) -> bytes:
        self.names.append(name)
        if name == "wait":
            self.waiting.release()
            assert self.allowed.wait(30)
        if name == "broken":
            raise RuntimeError("a bug")
        head = json.dumps({"name": name, "params": dict(params)}).encode()
        return struct.pack("<I", len(head)) + head


@dataclass
class Served:
    port: int
    answers: Asked

    def get(self, path: str, method: str = "GET", key: bool = True, **headers: str) -> http.client.HTTPResponse:
        """One request on a connection of its own; a name's `_` stands for `-`, an empty value for no such header."""
        given = {"Host": f"127.0.0.1:{self.port}"}
        if key:
            given["Authorization"] = f"Bearer {TOKEN}"
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.putrequest(method, path, skip_host=True)
        for name, value in given.items():
            if value:
                connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        response.body = response.read()  # type: ignore[attr-defined]
        connection.close()
        return response


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    answers, taken = Asked(), listen()
    running = server(answers, TOKEN, taken)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [taken]})
    thread.start()
    yield Served(taken.getsockname()[1], answers)
    running.should_exit = True
    answers.allowed.set()
    thread.join(20)
    assert not thread.is_alive()


def test_the_link_gives_a_cookie_that_opens_the_page_but_no_answers(served: Served) -> None:
    entered = served.get(f"/?token={TOKEN}", key=False)
    assert entered.status == 200 and b'<script src="/enter.js">' in entered.body
    cookie, *attributes = entered.headers["Set-Cookie"].split("; ")
    assert cookie.startswith(f"attnprobe-{served.port}=") and TOKEN not in cookie
    assert {"httponly", "samesite=strict"} <= {one.lower() for one in attributes}
    page = served.get("/", key=False, Cookie=cookie)
    assert page.status == 200
    assert page.body == (STATIC / "page.html").read_bytes()
    assert served.get("/main.js", key=False, Cookie=f"other=1; {cookie}").status == 200
    before = list(served.answers.names)
    for path in ("/ask/runs", "/%61sk/runs", "/ask/"):  # a browser shows the cookie to servers at other ports too
        assert served.get(path, key=False, Cookie=cookie).status == 401
        assert served.get(path, key=False, Authorization=f"Bearer {cookie.partition('=')[2]}").status == 401
    assert served.answers.names == before


def test_questions_are_given_their_parameters(served: Served) -> None:
    asked = served.get("/ask/patch?level=3&site=h.0%20a%26b&how=max")
    assert asked.headers["Content-Type"] == "application/octet-stream"
    assert json.loads(asked.body[4:]) == {"name": "patch", "params": {"level": "3", "site": "h.0 a&b", "how": "max"}}


def test_a_bearer_gets_answers_too(served: Served) -> None:
    assert served.get("/ask/runs", key=False, Authorization=f"Bearer {TOKEN}").status == 200
    assert served.get("/ask/runs", key=False, Authorization=f"bearer {TOKEN}").status == 200
    assert served.get("/ask/runs", key=False, Authorization="Bearer wrong").status == 401
    assert served.get("/ask/runs", Authorization="Bearer wrong").status == 401


@pytest.mark.parametrize("path", ["/", "/ask/runs", "/main.js", "/nothing", "/?token=", "/?token=wrong", "/?token=%FF"])
def test_without_the_key_nothing_is_given_and_the_link_is_named(served: Served, path: str) -> None:
    before = list(served.answers.names)
    for headers in ({}, {"Cookie": f"attnprobe-{served.port}=wrong"}, {"Cookie": f"attnprobe-1={TOKEN}"}):
        refused = served.get(path, key=False, **headers)
        assert refused.status == 401
        assert b"link" in refused.body and TOKEN.encode() not in refused.body
        assert "Set-Cookie" not in refused.headers
    assert served.answers.names == before


def test_a_wrong_key_in_the_address_is_refused_whatever_the_cookie_says(served: Served) -> None:
    assert served.get("/?token=wrong").status == 401
    assert served.get(f"/?token={TOKEN}&token=wrong").status == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}"]
)
def test_another_name_is_refused_even_with_the_key(served: Served, host: str) -> None:
    assert served.get("/ask/runs", Host=host.format(port=served.port)).status == 403


@pytest.mark.parametrize("hosts", ["", "Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n"])
def test_no_name_and_two_names_are_refused(served: Served, hosts: str) -> None:
    request = f"GET /ask/runs HTTP/1.0\r\n{hosts.format(port=served.port)}Authorization: Bearer {TOKEN}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        connection.sendall(request.encode())
        assert connection.recv(100).split()[1] in (b"400", b"403")


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LocalHost:{port}", "[::1]:{port}"])
def test_this_machines_own_names_are_answered(served: Served, host: str) -> None:
    assert served.get("/ask/runs", Host=host.format(port=served.port)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8888"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
    ],
)
def test_pages_of_other_sites_are_refused_even_with_the_key(served: Served, headers: dict[str, str]) -> None:
    for path in ("/ask/runs", "/", "/main.js", f"/?token={TOKEN}"):
        refused = served.get(path, **headers)
        assert (refused.status, "Set-Cookie" in refused.headers) == (403, False)


def test_the_pages_own_requests_are_answered(served: Served) -> None:
    own = {"Origin": f"http://127.0.0.1:{served.port}", "Sec_Fetch_Site": "same-origin"}
    assert served.get("/ask/runs", **own).status == 200
    assert served.get("/", Sec_Fetch_Site="none", Sec_Fetch_Mode="navigate").status == 200


def test_a_link_on_another_page_is_entered_through_a_page_of_the_server(served: Served) -> None:
    """Whose request sends the strict cookie, which a redirect from there would not."""
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    entered = served.get(f"/?token={TOKEN}", key=False, **link)
    assert entered.status == 200 and f"attnprobe-{served.port}=" in entered.headers["Set-Cookie"]
    assert b'<script src="/enter.js">' in entered.body
    script = served.get("/enter.js", key=False, Sec_Fetch_Site="same-origin")
    assert script.status == 200 and b'location.replace("/" + location.hash)' in script.body
    assert TOKEN.encode() not in script.body
    assert "javascript" in script.headers["Content-Type"]
    without = served.get("/", key=False, **link)
    assert without.status == 200 and "Set-Cookie" not in without.headers
    assert served.get("/?token=wrong", key=False, **link).status == 401
    assert served.get("/ask/runs", **link).status == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"])
def test_nothing_but_reading_is_allowed(served: Served, method: str) -> None:
    for path in ("/", "/ask/runs", "/nothing"):
        refused = served.get(path, method)
        assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")


def test_head_is_an_answer_without_its_body(served: Served) -> None:
    for path in ("/", "/main.js", "/ask/runs"):
        whole, head = served.get(path), served.get(path, "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == str(len(whole.body))


def test_every_file_of_the_front_end_is_given_as_what_it_is(served: Served) -> None:
    kinds = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
    files = [file for file in STATIC.iterdir() if file.suffix in kinds]
    assert {"main.js", "style.css"} <= {file.name for file in files}
    for file in files:
        given = served.get(f"/{file.name}")
        assert (given.status, given.body) == (200, file.read_bytes())
        assert given.headers["Content-Type"] == kinds[file.suffix]


@pytest.mark.parametrize(
    "path",
    [
        "/README.md",
        "/page.html",
        "/../plots.py",
        "/..%2fplots.py",
        "/%2e%2e/plots.py",
        "/%2e%2e%2fplots.py",
        "/..%5cplots.py",
        "//main.js",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/main.js/",
        "/main.js%00",
        "/main.js%00.css",
        "/./main.js",
        "/MAIN.JS",
        "/ask",
        "/ask/",
        "/ask/a/b",
        "/ask/../main.js",
        "/static/main.js",
        "http://evil.example/main.js",
    ],
)
def test_other_paths_are_not_found(served: Served, path: str) -> None:
    found = served.get(path)
    assert found.status == 404
    assert b"import" not in found.body and b"root:" not in found.body
    assert "Location" not in found.headers


def test_every_answer_has_the_headers_that_shut_a_page_off(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    answers = {
        200: served.get("/"),
        401: served.get("/", key=False),
        403: served.get("/", Host="evil.example"),
        404: served.get("/nothing"),
        405: served.get("/", "POST"),
        500: served.get("/ask/broken"),
    }
    for status, answer in answers.items():
        assert answer.status == status
        assert answer.headers["Content-Security-Policy"] == policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Server" not in answer.headers
    assert b"a bug" not in answers[500].body


def test_slow_questions_do_not_stop_others(served: Served) -> None:
    served.answers.allowed.clear()
    slow = [threading.Thread(target=served.get, args=("/ask/wait",)) for _ in range(THREADS - 1)]
    for thread in slow:
        thread.start()
    for _ in slow:
        assert served.answers.waiting.acquire(timeout=20)
    begun = time.monotonic()
    assert served.get("/ask/runs").status == 200
    assert served.get("/").status == 200
    assert time.monotonic() - begun < 5
    assert all(thread.is_alive() for thread in slow)
    served.answers.allowed.set()
    for thread in slow:
        thread.join(20)
        assert not thread.is_alive()


def test_work_is_bounded_and_what_nobody_waits_for_is_not_done(
    served: Served, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    served.answers.allowed.clear()
    slow = [threading.Thread(target=served.get, args=("/ask/wait",)) for _ in range(THREADS)]
    for thread in slow:
        thread.start()
    for _ in slow:
        assert served.answers.waiting.acquire(timeout=20)
    request = f"GET /ask/left HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", served.port)) as leaving:
            leaving.sendall(request.encode())
            time.sleep(0.05)
    with caplog.at_level(logging.WARNING):
        assert not served.answers.waiting.acquire(timeout=0.2)
        served.answers.allowed.set()
        for thread in slow:
            thread.join(20)
        assert served.get("/ask/runs").status == 200
    assert "left" not in served.answers.names
    assert caplog.text == "" and capfd.readouterr().err == ""


def test_who_goes_away_during_an_answer_leaves_no_traceback(
    served: Served, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    served.answers.allowed.clear()
    request = f"GET /ask/wait HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as leaving:
        leaving.sendall(request.encode())
        assert served.answers.waiting.acquire(timeout=20)
    served.answers.allowed.set()
    with caplog.at_level(logging.WARNING):
        assert served.get("/ask/runs").status == 200
    assert caplog.text == "" and capfd.readouterr().err == ""


def test_ctrl_c_does_not_wait_for_a_slow_answer_and_leaves_no_traceback() -> None:
    code = """
import os, signal, socket, time
from attnprobe.explorer.server import listen, serve
signal.signal(signal.SIGINT, signal.default_int_handler)
taken = listen()
client = socket.create_connection(taken.getsockname())
lines = ["GET /ask/slow HTTP/1.1", f"Host: 127.0.0.1:{taken.getsockname()[1]}", "Authorization: Bearer key", "", ""]
client.sendall("\\r\\n".join(lines).encode())

class Slow:
    def ask(self, name, params):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(120)

try:
    serve(Slow(), "key", taken)
except KeyboardInterrupt:
    print("ended")
"""
    environment = {**os.environ, "PYTHONPATH": str(STATIC.parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_what_fails_is_told_in_the_terminal(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "attnprobe.explorer.server"):
        assert served.get("/ask/broken").status == 500
    assert "/ask/broken failed" in caplog.text and "RuntimeError: a bug" in caplog.text


def test_only_this_machines_own_address_is_listened_on() -> None:
    with listen() as taken:
        assert taken.getsockname()[0] == "127.0.0.1"
        with pytest.raises(AttnprobeError, match=r"port \d+ is not to be had .*--port 0"):
            listen(taken.getsockname()[1])
