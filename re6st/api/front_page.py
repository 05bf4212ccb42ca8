"""The page for a browser that opens the address in an invitation: what this is, and what to do with an invitation."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

PATHS = ("/", "/index.html")
ICON = "/favicon.ico"

TEXT = """\
<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>re6st registry</title></head>
<body>
<h1>A re6st registry</h1>
<p>Here machines join a re6st network; there is nothing to see for a browser.</p>
<p>You have an invitation? It is a command. On the machine that is to join, where the package re6stnet is installed,
run it as root in /etc/re6stnet, and then start the service:</p>
<pre>re6st-conf join '...'
systemctl enable --now re6stnet</pre>
<p>You run this registry? The operator's page is at another address: re6st-registry web-login prints it.</p>
</body>
</html>
"""
"""It says nothing about the network, since anybody may read it."""


def response(path: str) -> web.Response | None:
    """The answer to a browser; None: the request is not for a page."""
    if path == ICON:
        return web.Response(status=HTTPStatus.NO_CONTENT)
    if path not in PATHS:
        return None
    policy = {"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff"}
    return web.Response(text=TEXT, content_type="text/html", headers=policy)
