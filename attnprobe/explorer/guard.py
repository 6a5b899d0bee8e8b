"""Who may ask the explorer's server: its own page, with the key of the printed link, under this machine's own name.

Other users of the machine can reach the port, and pages of other sites can make a browser ask it, also under a name of
theirs that they let point here (DNS rebinding). None of them gets anything but a refusal.
"""

from secrets import compare_digest
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

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
# Who follows a link of another site (of a terminal in a browser, of a chat) sends no strict cookie; from a page of the
# server's own, it is sent.
ENTER_PAGE = f'<!doctype html><meta charset="utf-8"><title>attnprobe</title><script src="/{ENTER}"></script>'
ENTER_SCRIPT = 'location.replace("/" + location.hash);\n'


class Guard:
    """Stands before an app and answers for it what must not reach it; adds `HEADERS` to every answer.

    Parameters
    ----------
    app
        What is guarded.
    token
        The key, in the printed link and then in a cookie of this port's own, or as ``Authorization: Bearer``.
    port
        Of the server.
    """

    def __init__(self, app: "ASGIApp", token: str, port: int) -> None:
        self.app, self.token = app, token.encode()
        self.cookie = f"attnprobe-{port}"  # cookies know no ports: two servers would take each other's
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
            enter = HTMLResponse(ENTER_PAGE) if elsewhere else RedirectResponse("/", 303)
            enter.set_cookie(self.cookie, self.token.decode(), httponly=True, samesite="strict")
            return enter
        if elsewhere and given is None:
            return HTMLResponse(ENTER_PAGE)
        return None if given is None and self._has_key(headers) else PlainTextResponse(OPEN_IT, 401)

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

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._is_token(bearer.strip())
        return self._is_token(cookie_parser(headers.get("cookie", "")).get(self.cookie, ""))

    def _is_token(self, given: str) -> bool:
        return compare_digest(given.encode("utf-8", "surrogateescape"), self.token)
