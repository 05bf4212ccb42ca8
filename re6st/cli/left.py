"""/usr/lib/re6stnet/end-left: ends what a node left running if no other daemon took it over
(re6st/noded/left_behind.py).

It is for re6stnet-tunnels.service, and for machines without systemd: end-left [RUN], as the node's own user or root.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from re6st.cli.options import fail
from re6st.noded import left_behind
from re6st.service.rundir import RunDirectoryBusy, RunDirectoryError

PROGRAM = "end-left"
RUN = Path("/run/re6stnet")
"""The run directory of the service."""


def main(argv: Sequence[str] | None = None) -> int:
    """End it, and say what it was; returns the exit status. A running node is left alone."""
    words = sys.argv[1:] if argv is None else argv
    run = Path(words[0]).absolute() if words else RUN
    try:
        removed = asyncio.run(left_behind.remove_alone(run))
    except RunDirectoryBusy:
        print(f"{PROGRAM}: the node of {run} lives: nothing is done")
        return 0
    except RunDirectoryError as error:
        fail(PROGRAM, str(error))
    except OSError as error:
        fail(PROGRAM, f"{error.strerror}. Run it as the user of the node, with CAP_NET_ADMIN, or as root.")
    if removed:
        print(f"{PROGRAM}: removed what a node left: {', '.join(removed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
