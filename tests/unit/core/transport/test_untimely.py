"""Certificates that OpenVPN refuses for the time are read from what it prints, and told within bounds."""

from __future__ import annotations

import pytest

from re6st.core.prefix import Prefix
from re6st.core.transport.openvpn_lines import Reader
from re6st.core.transport.untimely import LASTS, PEERS_LIMIT, SAY_AGAIN, RefusedCertificates, Untimely

START = ">LOG:1795956994,N,127.0.0.1:51698 VERIFY ERROR: depth=0, error=certificate "


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (f"{START}is not yet valid: serialNumber=1, CN=1/16, serial=11", Untimely(Prefix(1, 16), 11, early=True)),
        (f"{START}has expired: C=DE, serialNumber=2, CN=2/16, serial=12", Untimely(Prefix(2, 16), 12, early=False)),
        (f"{START}has expired: serialNumber=2, CN=2/16", Untimely(Prefix(2, 16), None, early=False)),  # 2.4
        (f"{START}has expired: O=x, CN=9/16, serial=7, CN=2/16, serial=12", Untimely(Prefix(2, 16), 12, early=False)),
        (f"{START}has expired: CN=9/16, serial=7, O=x", None),
        (f"{START}has expired: CN=99/2, serial=7", None),
        (f"{START}revoked: CN=2/16, serial=7", None),
        (f"{START.replace('depth=0', 'depth=1')}has expired: CN=2/16, serial=7", None),
        (">LOG:1795956994,I,TCP connection established with [AF_INET]127.0.0.1:51698", None),
        (">LOG:", None),
        (">LOG:" + "CN=1/16, " * 1000, None),
    ],
)
def test_a_line_of_openvpn_names_the_owner(line: str, found: Untimely | None) -> None:
    assert Reader().feed(line) == found


def test_a_line_between_those_of_a_client_leaves_these_whole() -> None:
    reader = Reader()
    for line in (">CLIENT:CONNECT,1,2", ">CLIENT:ENV,common_name=1/16", f"{START}has expired: CN=2/16, serial=7"):
        reader.feed(line)
    event = reader.feed(">CLIENT:ENV,END")
    assert event is not None
    assert "1/16" in str(event)


def test_each_is_said_once_in_a_while_and_told_while_it_lasts() -> None:
    refused, one, other = (
        RefusedCertificates(),
        Untimely(Prefix(1, 16), 1, early=True),
        Untimely(Prefix(2, 16), 2, early=False),
    )
    assert [refused.note(each, now) for each, now in ((one, 0), (one, 60), (other, 61), (one, SAY_AGAIN))] == [
        True,
        False,
        True,
        True,
    ]
    assert str(one) == "the certificate 1 of 1/16 is not valid yet"
    assert str(other) == "the certificate 2 of 2/16 has expired"
    assert refused.found(SAY_AGAIN + LASTS) == [one]
    assert refused.found(SAY_AGAIN + LASTS + 1) == []
    refused.came(one.peer)
    assert refused.found(SAY_AGAIN) == []


def test_what_is_remembered_is_bounded() -> None:
    refused = RefusedCertificates()
    for number in range(3 * PEERS_LIMIT):
        refused.note(Untimely(Prefix(number, 16), None, early=True), float(number))
    assert len(refused._last) == len(refused._said) == PEERS_LIMIT
