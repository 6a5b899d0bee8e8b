"""Who may ask the explorer's server: its own page, with the key of the printed link, under this machine's own name.

Other users of the machine can reach the port, and pages of other sites can make a browser ask it, also under a name of
theirs that they let point here (DNS rebinding). None of them gets anything but a refusal.

A browser shows its cookies to every port of a machine, so also to a server of somebody else: the cookie opens the page,
which is no secret, and for answers the page gives the key, which only pages of its own port can get at.
"""

from hashlib import sha256
from secrets import compare_digest
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAMES = ("127.0.0.1", "localhost", "[::1]")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
OPEN_IT = "open the link that `attnprobe view` printed: it holds the key\n"
ENTER = "enter.js"
ASK = "/ask/"  # what answers begin with
# The page that puts the key where `main.js` finds it. It is also what who follows a link of another site
# (of a terminal in a browser, of a chat) is given first: no strict cookie is sent from there, but from here it is.
ENTER_PAGE = f'<!doctype html><meta charset="utf-8"><title>attnprobe</title><script src="/{ENTER}"></script>'
ENTER_SCRIPT = """const key = new URLSearchParams(location.search).get("token");
if (key !== null) localStorage.setItem("attnprobe", key);
location.replace("/" + location.hash);
"""


class Guard:
    """Stands before an app and answers for it what must not reach it; adds `HEADERS` to every answer.

    Parameters
    ----------
    app
        What is guarded.
    token
        The key, in the printed link and then as ``Authorization: Bearer``; a cookie that opens the page is made of it.
    port
        Of the server.
    """

    def __init__(self, app: "ASGIApp", token: str, port: int) -> None:
        self.app, self.token = app, token.encode()
        self.cookie = f"attnprobe-{port}"  # cookies know no ports: two servers would take each other's
        self.page_key = sha256(b"page " + self.token).hexdigest()
        self.hosts = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer, or let the app answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def headed(message: "Message") -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        answer = self._answer(scope)
        await (self.app if answer is None else answer)(scope, receive, headed)

    def _answer(self, scope: "Scope") -> Response | None:
        """What is answered instead of by the app; None where the app may answer."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return PlainTextResponse(f"this server is {' or '.join(sorted(self.hosts))}, and no other name\n", 403)
        elsewhere = self._from_elsewhere(headers, hosts[0])
        if elsewhere and not self._is_link(scope, headers):
            return PlainTextResponse("this server answers no pages of other sites\n", 403)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("this server is only read\n", 405, {"Allow": "GET, HEAD"})
        if scope["path"] == f"/{ENTER}":  # before there is a cookie
            return Response(ENTER_SCRIPT, media_type="text/javascript")
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token") if scope["path"] == "/" else None
        if given is not None and len(given) == 1 and self._is_token(given[0]):
            enter = HTMLResponse(ENTER_PAGE)
            enter.set_cookie(self.cookie, self.page_key, httponly=True, samesite="strict")
            return enter
        if elsewhere and given is None:
            return HTMLResponse(ENTER_PAGE)
        opened = given is None and self._has_key(headers, scope["path"])
        return None if opened else PlainTextResponse(OPEN_IT, 401)

    @staticmethod
    def _from_elsewhere(headers: Headers, host: str) -> bool:
        """Whether a page of another origin made the browser ask; tools and an address typed in are not elsewhere."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        return (origin is not None and origin.lower() != f"http://{host.lower()}") or site not in (
            "same-origin",
            "none",
        )

    @staticmethod
    def _is_link(scope: "Scope", headers: Headers) -> bool:
        """Whether a person followed a link to the page, which the page that has it never gets to see."""
        whole = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
        return whole and scope["method"] == "GET" and scope["path"] == "/" and "origin" not in headers

    def _has_key(self, headers: Headers, path: str) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._is_token(bearer.strip())
        given = cookie_parser(headers.get("cookie", "")).get(self.cookie, "")
        return not path.startswith(ASK) and _same(given, self.page_key.encode())

    def _is_token(self, given: str) -> bool:
        return _same(given, self.token)


def _same(given: str, wanted: bytes) -> bool:
    return compare_digest(given.encode("utf-8", "surrogateescape"), wanted)
