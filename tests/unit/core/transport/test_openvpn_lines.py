"""OpenVPN's management protocol, with lines as 2.6.14 sends them."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.transport.openvpn_lines import (
    LINE_LIMIT,
    USED,
    Answer,
    Behind,
    Client,
    ClientChange,
    EndOfList,
    Environment,
    Event,
    Fatal,
    Hold,
    Listed,
    ProcessState,
    ProcessTraffic,
    ProcessUp,
    Reader,
)


def events(*lines: str) -> list[Event]:
    reader = Reader()
    return [event for line in lines if (event := reader.feed(line))]


def test_a_client_that_wants_in() -> None:
    (event,) = events(
        ">CLIENT:CONNECT,3,7",
        ">CLIENT:ENV,n_clients=0",
        ">CLIENT:ENV,common_name=1/16",
        ">CLIENT:ENV,X509_0_CN=1/16",
        ">CLIENT:ENV,tls_serial_0=12",
        ">CLIENT:ENV,tls_serial_hex_0=0c",
        ">CLIENT:ENV,untrusted_ip=192.0.2.7",
        ">CLIENT:ENV,untrusted_port=40000",
        ">CLIENT:ENV,password=a=b=c",
        ">CLIENT:ENV,END",
    )
    assert isinstance(event, Client)
    assert (event.change, event.ident, event.key) == (ClientChange.CONNECT, 3, 7)
    environment = event.environment
    assert (environment.common_name, environment.serial, environment.trusted_ip) == ("1/16", 12, "192.0.2.7")
    assert "password" not in environment
    assert environment.external_ip is None


@pytest.mark.parametrize(
    ("head", "change", "key"),
    [
        ("REAUTH,3,8", ClientChange.REAUTH, 8),
        ("ESTABLISHED,3", ClientChange.ESTABLISHED, None),
        ("DISCONNECT,3", ClientChange.DISCONNECT, None),
    ],
)
def test_what_happens_to_a_client(head: str, change: ClientChange, key: int | None) -> None:
    (event,) = events(f">CLIENT:{head}", ">CLIENT:ENV,common_name=x", ">CLIENT:ENV,END")
    assert event == Client(change, 3, key, Environment(common_name="x"))


def test_the_address_of_a_client_has_no_environment_behind_it() -> None:
    lines = [">CLIENT:ADDRESS,3,10.0.0.1,1", ">CLIENT:ESTABLISHED,3", ">CLIENT:ENV,common_name=b", ">CLIENT:ENV,END"]
    assert events(*lines) == [Client(ClientChange.ESTABLISHED, 3, None, Environment(common_name="b"))]


def test_a_client_tunnel_that_is_up() -> None:
    (event,) = events(
        ">UPDOWN:UP",
        ">UPDOWN:ENV,tun_mtu=1500",
        ">UPDOWN:ENV,OPENVPN_external_ip=203.0.113.9",
        ">UPDOWN:ENV,trusted_ip6=2001:db8::7",
        ">UPDOWN:ENV,END",
    )
    assert isinstance(event, ProcessUp)
    assert event.environment.external_ip == "203.0.113.9"
    assert event.environment.trusted_ip == "2001:db8::7"
    assert events(">UPDOWN:DOWN", ">UPDOWN:ENV,END") == []


def test_other_notifications() -> None:
    assert events(
        ">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info",
        ">HOLD:Waiting for hold release:0",
        "SUCCESS: hold release succeeded",
        "ERROR: unknown command, enter 'help' for more options",
        ">STATE:1700000000,CONNECTED,SUCCESS,10.0.0.2,192.0.2.1,1194,,",
        ">STATE:1700000000,RECONNECTING,tls-error,,,,,",
        ">BYTECOUNT:12,34",
        ">BYTECOUNT_CLI:5,12,34",
        ">FATAL:Cannot open TUN/TAP dev /dev/net/tun: No such file or directory (errno=2)",
        ">PASSWORD:Need 'Private Key' password",
        "TITLE\tOpenVPN 2.6.14",
        "HEADER\tCLIENT_LIST\tCommon Name\tReal Address",
        "CLIENT_LIST\t2/16\t192.0.2.7:50000\t\t\t1\t2\t2026-01-01 00:00:00\t1767225600\tUNDEF\t7\t0\tAES-256-GCM",
        "CLIENT_LIST\t2/16\t192.0.2.7:50000",
        "HEADER\tROUTING_TABLE\tVirtual Address\tCommon Name",
        "ROUTING_TABLE\t5e:2e:7e:12:a0:02@0\t2/16\t192.0.2.7:50000\t2026-01-01 00:00:00\t1767225600",
        "ROUTING_TABLE\t10.0.0.1\t2/16\t192.0.2.7:50000\t2026-01-01 00:00:00\t1767225600",
        "ROUTING_TABLE\t5e:2e:7e:12:a0:02",
        "CLIENT_LIST\t2/16\t\t\t\t\t\t\t\t\tx\t0\t",
        "END",
        "",
    ) == [
        Hold(),
        Answer(True, "hold release succeeded"),
        Answer(False, "unknown command, enter 'help' for more options"),
        ProcessState("CONNECTED", "SUCCESS"),
        ProcessState("RECONNECTING", "tls-error"),
        ProcessTraffic(None, 12, 34),
        ProcessTraffic(5, 12, 34),
        Fatal("Cannot open TUN/TAP dev /dev/net/tun: No such file or directory (errno=2)"),
        Listed(7, "2/16"),
        Behind("5e:2e:7e:12:a0:02", "2/16"),
        EndOfList(),
    ]


@pytest.mark.parametrize(
    "lines",
    [
        [">CLIENT:CONNECT", ">CLIENT:ENV,END"],
        [">CLIENT:CONNECT,x,1", ">CLIENT:ENV,END"],
        [">CLIENT:CONNECT,1,x", ">CLIENT:ENV,END"],
        [">CLIENT:NONSENSE,1,2", ">CLIENT:ENV,END"],
        [">CLIENT:ENV,END"],
        [">CLIENT:ENV,a=b", ">CLIENT:ENV,END"],
        [">STATE:1700000000"],
        [">BYTECOUNT:1"],
        [">BYTECOUNT:a,b"],
        [">BYTECOUNT_CLI:1,2"],
        [">"],
        [">:"],
    ],
)
def test_what_cannot_be_read_is_skipped_and_the_next_one_is_read(lines: list[str]) -> None:
    assert events(*lines, ">HOLD:Waiting for hold release:0") == [Hold()]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("trusted_ip", "::ffff:192.0.2.1", "192.0.2.1"),
        ("trusted_ip", "10.0.0.1; rm -rf /", None),
        ("trusted_ip", '10.0.0.1"', None),
        ("trusted_ip", "2001:DB8:0::1", "2001:db8::1"),
        ("tls_serial_0", "-5", None),
        ("tls_serial_0", "٣", None),
        ("tls_serial_0", "9" * 5000, None),
        ("tls_serial_0", "", None),
        ("X509_0_serialNumber", "7", 7),
        ("X509_0_serialNumber", "x7", None),
        ("X509_0_serialNumber", "9" * 5000, None),
        ("OPENVPN_external_ip", "somewhere", None),
        ("OPENVPN_external_ip", "fe80::1%eth0\nevil", None),
    ],
)
def test_only_values_of_the_right_form_are_used(name: str, text: str, value: str | int | None) -> None:
    environment = Environment({name: text})
    found = {
        "trusted_ip": environment.trusted_ip,
        "tls_serial_0": environment.serial,
        "X509_0_serialNumber": environment.number,
        "OPENVPN_external_ip": environment.external_ip,
    }[name]
    assert found == value


def test_of_the_variables_only_those_are_kept_that_are_used() -> None:
    lines = [f">CLIENT:ENV,{name}={'x' * 10_000}" for name in (*USED, *(f"UV_{n}" for n in range(1000)))]
    (event,) = events(">CLIENT:CONNECT,1,2", *lines, ">CLIENT:ENV,END")
    environment = cast(Client, event).environment
    assert set(environment) == USED
    assert all(len(value) < LINE_LIMIT for value in environment.values())


@pytest.mark.parametrize("name", ["UV_X", "IV_X", "OPENVPN_X"])
def test_a_certificate_is_not_hidden_behind_what_the_other_end_says(name: str) -> None:
    before = [f">CLIENT:ENV,{name}{number}=x" for number in range(3000)]
    (event,) = events(
        *(">CLIENT:CONNECT,1,2", ">CLIENT:ENV,common_name=5/16", *before),
        *(">CLIENT:ENV,tls_serial_0=77", ">CLIENT:ENV,trusted_ip=192.0.2.7", ">CLIENT:ENV,END"),
    )
    environment = cast(Client, event).environment
    assert (environment.common_name, environment.serial, environment.trusted_ip) == ("5/16", 77, "192.0.2.7")


PIECES = st.sampled_from(
    [
        ">",
        "CLIENT:",
        "ENV,",
        "END",
        "CONNECT,",
        "REAUTH,",
        "UPDOWN:",
        "UP",
        "STATE:",
        "1",
        ",",
        "=",
        "BYTECOUNT:",
        "²",
        "x",
    ]
)


@given(st.lists(st.text(max_size=60) | st.lists(PIECES, max_size=8).map("".join), max_size=20))
def test_any_lines_raise_nothing(lines: list[str]) -> None:
    reader = Reader()
    for line in lines:
        event = reader.feed(line)
        if isinstance(event, Client | ProcessUp):
            _ = event.environment.serial, event.environment.trusted_ip, event.environment.external_ip
    reader.feed(">CLIENT:CONNECT,1,2")
    assert reader.feed(">CLIENT:ENV,END") == Client(ClientChange.CONNECT, 1, 2, Environment())
