"""A certificate as a record."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from re6st import cert
from re6st.client.certificate_report import describe, key_fingerprint
from re6st.keys import pki


def test_whose_it_is_until_when_and_by_whom(nodes: dict[str, cert.Identity], authority: cert.Authority) -> None:
    identity = nodes["1/16"]
    told = describe(identity.trust.ca, identity.cert)
    json.dumps(told)
    ca = told["ca"]
    assert isinstance(ca, dict)
    assert told["cn"] == "1/16"
    assert "CN=1/16" in str(told["subject"])
    assert str(told["subnet"]).endswith("/64")
    assert str(told["address"]).endswith("1")
    assert told["serial"] == identity.cert.serial_number
    assert isinstance(told["until"], int)
    assert isinstance(told["renews"], int)
    assert told["until"] - told["renews"] == 30 * 86400
    assert datetime.fromtimestamp(told["until"], UTC) == pki.end_of(identity.cert)
    assert ca["network"] == str(identity.trust.network)
    assert ca["fingerprint"] == f"sha256:{cert.fingerprint(identity.trust.ca, 'sha256').hex()}"
    renewed = cert.new_ca(authority.key, identity.trust.network, "x", "x@example.org", datetime.now(UTC))
    assert key_fingerprint(renewed) == ca["key_fingerprint"] != ca["fingerprint"]
    assert told["fingerprint"] != ca["fingerprint"]
