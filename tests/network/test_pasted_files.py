"""Files that came by copy and paste: a node runs with them, and puts right what OpenVPN would not read."""

from __future__ import annotations

from testbed import Bed, Network
from tests.unit.view.test_pasted import FORMS

FORMS_IN = 90


def test_a_node_with_pasted_certificates_and_configuration_is_connected(bed: Bed) -> None:
    network = Network(bed, 2)
    network.create()
    network.enrol()
    first, second = network.nodes
    for name, form in (("ca.crt", "indented"), ("cert.crt", "CR only"), ("cert.key", "no-break spaces")):
        path = second.host.etc / name
        path.write_bytes(FORMS[form](path.read_text()).encode())
    configuration = second.host.etc / "re6stnet.conf"
    configuration.write_bytes(
        f"\ufeff{configuration.read_text()}".replace("\n", "\r\n").replace(" ", "\u00a0").encode()
    )
    checked = second.run("--check")
    assert checked.returncode == 0, checked.stderr
    for name in ("ca.crt", "cert.crt", "cert.key"):
        assert f"{name}: OpenVPN does not read its form -> the node writes it anew as it starts" in checked.stderr
    for node in (first, second):
        node.start()
    network.wait_connected(FORMS_IN)
    assert "OpenVPN does not read" not in second.run("--check").stderr
