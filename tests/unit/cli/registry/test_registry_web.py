"""The operator's page as the program serves it: its place, what happens when that is taken, and the way to log in."""

from __future__ import annotations

import argparse
import json
import socket
import stat
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from re6st.cli.registry.config import make_parser
from re6st.cli.registry.page import SOCKET_PATH_LIMIT, Listen, WebConfig, WebError, configured, listen, place
from tests.unit.cli.registry.test_cli_registry import Process, free_port, wait_until
from tests.unit.operator_place import Place


@pytest.mark.parametrize(
    ("text", "shown", "url"),
    [
        ("9000", "127.0.0.1:9000", "http://127.0.0.1:9000/"),
        ("192.0.2.1:80", "192.0.2.1:80", "http://192.0.2.1:80/"),
        ("[::1]:9000", "[::1]:9000", "http://[::1]:9000/"),
        ("0.0.0.0:9000", "0.0.0.0:9000", "http://localhost:9000/"),
        ("/run/x.sock", "/run/x.sock", None),
        ("./x", "x", None),
    ],
)
def test_places(text: str, shown: str, url: str | None) -> None:
    found = place(text)
    assert found is not None
    assert (str(found), found.url) == (shown, url)


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "-1", "localhost:80", "1.2.3.4", "::1", "٣", "/" + "x" * 107])
def test_no_places(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="socket"):
        place(text)
    assert SOCKET_PATH_LIMIT == 107


def test_a_taken_port_ends_the_registry() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        asked = place(str(port))
        assert asked is not None
        with pytest.raises(WebError, match=r"cannot listen on 127.0.0.1:\d+: Address already in use. Choose another"):
            listen(WebConfig(asked, False, None, 80))


def test_a_socket_that_was_left_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "page.sock"
    config = WebConfig(Listen(path=path), False, None, 80)
    for _ in range(2):
        bound = listen(config)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        bound.close()
    path.unlink()
    path.write_text("precious")
    with pytest.raises(WebError, match="there is a file that is not a socket"):
        listen(config)
    assert path.read_text() == "precious"


def test_the_program_serves_it_and_makes_a_link(resting: Place) -> None:
    port = free_port()
    process = Process(resting.directory, "--web", str(port), "--web-login")
    try:
        wait_until(process.answers)
        wait_until((resting.directory / "r.db.sock").exists)
        base = f"http://127.0.0.1:{port}"
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(f"{base}/nodes.json", timeout=10)
        refused.value.close()
        link = resting.word("web-login").out.strip()
        assert link.startswith(f"{base}/login#"), "so that it is in no log"
        assert resting.word("web-login", "--json").json["listening"] == f"127.0.0.1:{port}"
        with urllib.request.urlopen(link, timeout=10) as page:
            assert b"Log in" in page.read()
    finally:
        process.process.terminate()
        assert process.finish() == (0, "")


@pytest.mark.parametrize("options", [(), ("--web", "off"), ("--web-login",)])
def test_nobody_gets_a_page_that_nobody_asked_for(options: tuple[str, ...]) -> None:
    """Option files of the older software say nothing of a page, and other programs run on such machines."""
    parsed = make_parser().parse(["--ca", "ca.crt", "--key", "ca.key", "--dh", "dh.pem", *options])
    assert configured(parsed) is None


def test_off_is_off(resting: Place) -> None:
    process = Process(resting.directory, "--web", "off")
    try:
        wait_until(process.answers)
        wait_until((resting.directory / "r.db.sock").exists)
        assert "no operator's page" in resting.word("web-login").err
    finally:
        process.process.terminate()
        assert process.finish() == (0, "")


def test_without_a_login_on_this_machine(resting: Place) -> None:
    port = free_port()
    process = Process(resting.directory, "--web", str(port))
    try:
        wait_until(process.answers)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/overview.json", timeout=10) as answer:
            record = json.load(answer)
        assert record["schema"] == 1
        assert "Who is online is unknown" in record["problems"][0]
    finally:
        process.process.terminate()
        assert process.finish() == (0, "")
