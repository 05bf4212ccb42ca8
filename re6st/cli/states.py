"""/usr/lib/re6stnet/prepare-states: the work of root before a service starts, and when the package is removed."""

from __future__ import annotations

import grp
import sys
import syslog
from collections.abc import Sequence

from re6st.migration import older
from re6st.service import states
from re6st.service.states import NODE, READERS, REGISTRY, ROOT, Owner, Places, StateError

PROGRAM = "prepare-states"


def main(argv: Sequence[str] | None = None, places: Places = Places()) -> int:  # noqa: B008
    """Without an argument, before a service starts: move the registry's state out of the node's directory, and give
    files that root made there to the services. With `older`, when the package is removed and nothing runs: put
    everything into the form that the older software knows.

    Returns the exit status: with 1, the registry must not be started, as it would not find its database.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        with states.alone(places):
            if list(argv) == ["older"]:
                for line in older.hand_over(places, _owner(NODE), _owner(REGISTRY), ROOT):
                    _say(line)
            else:
                _prepare(places)
        return 0
    except KeyError as error:
        _say(f"{error.args[0]}: systemd-sysusers makes it")
    except StateError as error:
        _say(str(error))
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}")
    return 1


def _prepare(places: Places) -> None:
    node, registry = states.owner(NODE), states.owner(REGISTRY)
    readers = grp.getgrnam(READERS).gr_gid
    for line in states.move_registry(places, registry):
        _say(line)
    older.take_back(places)
    for name, user in ((NODE, node), (REGISTRY, registry)):
        states.adopt(places.state(name), user, 0o600)
        states.adopt(places.log(name), Owner(user.user, readers), 0o640)


def _owner(name: str) -> Owner | None:
    try:
        return states.owner(name)
    except KeyError:
        return None


def _say(line: str) -> None:
    """On the terminal, or in the log of the unit, and in the system's log."""
    print(f"{PROGRAM}: {line}", file=sys.stderr)
    syslog.syslog(syslog.LOG_NOTICE, line)


if __name__ == "__main__":
    sys.exit(main())
