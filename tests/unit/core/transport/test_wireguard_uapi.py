"""What wireguard-go is told, and what its answers say."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from re6st.core.transport.wireguard_uapi import ANSWER_LIMIT, LinkConfig, LinkState, UapiError, read, request

ANSWER = (
    b"private_key="
    + b"11" * 32
    + b"\nlisten_port=51999\npublic_key="
    + b"22" * 32
    + b"\npreshared_key="
    + b"00" * 32
    + b"\n"
    b"protocol_version=1\nendpoint=127.0.0.1:9\nlast_handshake_time_sec=1700000000\nlast_handshake_time_nsec=500000000\n"
    b"tx_bytes=148\nrx_bytes=92\npersistent_keepalive_interval=1\nallowed_ip=::/0\nallowed_ip=0.0.0.0/0\nerrno=0\n\n"
)
"""As version 0.0.20220316 gives it."""


def test_an_interface_gets_its_keys_its_port_and_one_peer_for_everything() -> None:
    text = request(LinkConfig(b"s" * 32, 51820, b"p" * 32, (ip_address("192.0.2.1"), 51821), 25)).decode()
    assert text.splitlines() == [
        "set=1",
        f"private_key={'73' * 32}",
        "listen_port=51820",
        "replace_peers=true",
        f"public_key={'70' * 32}",
        "endpoint=192.0.2.1:51821",
        "persistent_keepalive_interval=25",
        "allowed_ip=::/0",
        "allowed_ip=0.0.0.0/0",
        "",
    ]
    assert text.endswith("\n\n")


def test_packets_are_marked_where_that_is_said_and_else_as_they_were() -> None:
    assert b"fwmark" not in request(LinkConfig(b"s" * 32, 51820, b"p" * 32))
    assert b"\nfwmark=32\n" in request(LinkConfig(b"s" * 32, 51820, b"p" * 32, mark=32))


def test_where_the_peer_is_may_be_unknown_or_of_ipv6() -> None:
    assert b"endpoint" not in request(LinkConfig(b"s" * 32, 51820, b"p" * 32))
    assert b"endpoint=[2001:db8::1]:7" in request(LinkConfig(b"s" * 32, 1, b"p" * 32, (ip_address("2001:db8::1"), 7)))


def test_what_it_tells_is_read() -> None:
    state = LinkState(51999, b"\x22" * 32, 1700000000.5, (ip_address("127.0.0.1"), 9), 92, 148)
    assert read(ANSWER) == state
    assert read(ANSWER.replace(b"127.0.0.1:9", b"[2001:db8::1]:9")).endpoint == (ip_address("2001:db8::1"), 9)
    assert read(b"errno=0\n\n") == LinkState()
    assert read(ANSWER.replace(b"1700000000", b"0").replace(b"500000000", b"0")).handshake is None


def test_a_refusal_has_its_number() -> None:
    for text in (b"errno=-98\n\n", b"errno=98\n\n"):
        with pytest.raises(UapiError) as error:
            read(text)
        assert error.value.errno == 98


@pytest.mark.parametrize(
    "text",
    [
        b"",
        ANSWER.replace(b"errno=0\n", b""),
        ANSWER.replace(b"51999", b"x"),
        ANSWER.replace(b"51999", b"9" * 30),
        ANSWER.replace(b"127.0.0.1:9", b"nowhere:9"),
        ANSWER.replace(b"127.0.0.1:9", b"127.0.0.1:"),
        ANSWER.replace(b"22" * 32, b"22" * 31),
        ANSWER.replace(b"22" * 32, b"zz" * 32),
        ANSWER.replace(b"errno", b"public_key=" + b"33" * 32 + b"\nerrno"),
        b"x=1\n" * ANSWER_LIMIT + b"errno=0\n\n",
    ],
)
def test_what_is_no_answer_is_refused_and_the_secret_key_is_in_no_error(text: bytes) -> None:
    with pytest.raises(UapiError) as error:
        read(text)
    assert error.value.errno == 0
    assert "1111" not in str(error.value)


def test_the_secret_key_is_not_shown() -> None:
    config = LinkConfig(b"s" * 32, 51820, b"p" * 32)
    assert "ssss" not in repr(config)
