"""/usr/lib/re6stnet/prepare-states: what root does before a unit starts its service (re6st/states.py)."""

from __future__ import annotations

import grp
import sys
from collections.abc import Sequence

from re6st import states
from re6st.states import NODE, READERS, REGISTRY, Owner, Places

PROGRAM = "prepare-states"


def main(argv: Sequence[str] | None = None, places: Places = Places()) -> int:  # noqa: B008
    """Move the registry's state out of the node's directory, and give files that root made there to the services.

    Returns the exit status: with 1 the registry must not be started, as it would not find its database.
    """
    status = 0
    try:
        node, registry = states.owner(NODE), states.owner(REGISTRY)
        readers = grp.getgrnam(READERS).gr_gid
        with states.alone(places):
            for line in states.move_registry(places, registry):
                print(f"{PROGRAM}: {line}", file=sys.stderr)
            for name, user in ((NODE, node), (REGISTRY, registry)):
                states.adopt(places.state(name), user, 0o600)
                states.adopt(places.log(name), Owner(user.user, readers), 0o640)
    except KeyError as error:
        print(f"{PROGRAM}: {error.args[0]}: systemd-sysusers makes it", file=sys.stderr)
        status = 1
    except states.StateError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        status = 1
    except OSError as error:
        print(f"{PROGRAM}: {error.filename}: {error.strerror}", file=sys.stderr)
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
