"""Who sent packets that were dropped is named."""

from __future__ import annotations

import pytest

from re6st.core.prefix import Prefix
from re6st.noded.accused import accuse
from re6st.noded.packet_filter import Sender

PEERS = {"re6stnet1": [Prefix(4, 16)], "re6stnet-tcp": [Prefix(number, 16) for number in range(10, 20)]}


@pytest.mark.parametrize(
    ("interface", "who"),
    [
        ("re6stnet1", "from 4/16: it sent"),
        ("re6stnet-tcp", "from 10/16 or 11/16 or 12/16 or 13/16 or 14/16 or another client: it sent"),
        ("re6stnet9", "from nobody known: it sent"),
    ],
)
def test_the_log_says_by_which_tunnel_forged_packets_came(
    caplog: pytest.LogCaptureFixture, interface: str, who: str
) -> None:
    accuse([Sender(interface, "02:00:00:00:00:01", 7)], lambda name, _: PEERS.get(name, []))
    (record,) = caplog.records
    assert record.getMessage().startswith("dropped 7 packets with a forged source, which came by")
    assert who in record.getMessage()
    assert "02:00:00:00:00:01" in record.getMessage()


def test_a_link_of_wireguard_has_one_peer_and_no_hardware_address(caplog: pytest.LogCaptureFixture) -> None:
    accuse([Sender("re6stnet-wgs1", "", 7)], lambda name, _: [Prefix(4, 16)] if name == "re6stnet-wgs1" else [])
    assert caplog.messages[0].startswith(
        "dropped 7 packets with a forged source, which came by re6stnet-wgs1 from 4/16:"
    )
