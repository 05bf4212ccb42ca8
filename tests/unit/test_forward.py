"""The way from the machine's loopback to a host's, where nobody takes it."""

from __future__ import annotations

import socket
from typing import cast

import pytest

from testbed.forward import Forward
from testbed.host import Host


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_it_ends_also_if_nobody_came() -> None:
    with Forward(cast("Host", None), 1) as forward:
        port = forward.port
        assert port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
