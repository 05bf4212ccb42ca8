"""What re6st-conf and its commands share: names of files, exit codes, and how they print and end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from re6st import cert
from re6st.cli.options import fail
from re6st.client.registry_client import RegistryError, RegistryRefused, RegistryUnreachable

PROGRAM = "re6st-conf"

SERVICE_DIRECTORY = Path("/etc/re6stnet")
CA, KEY, CERT, CONF = "ca.crt", "cert.key", "cert.crt", "re6stnet.conf"

FAILED, USAGE, UNREACHABLE, REFUSED, INTERRUPTED = 1, 2, 3, 5, 130
"""Exit codes besides 0. A CA that does not have the expected fingerprint, and an unknown token, give 1 (wire.md 11.4).
"""


class ConfError(Exception):
    """Ends the program with one line for the user and an exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def say(what: str, text: str) -> None:
    print(f"{what:<8} {text}", flush=True)


def warn(text: str) -> None:
    print(f"{PROGRAM}: warning: {text}", file=sys.stderr, flush=True)


def carry_out(program: str, work: Callable[[], int], directory: Path) -> int:
    """Do something, and if it fails, end the program with one line and an exit code."""
    try:
        return work()
    except RegistryUnreachable as error:
        fail(program, str(error), UNREACHABLE)
    except RegistryRefused as error:
        fail(program, str(error), REFUSED)
    except ConfError as error:
        fail(program, str(error), error.code)
    except (RegistryError, cert.CertError) as error:
        fail(program, str(error))
    except OSError as error:
        fail(program, f"{error.filename or directory}: {error.strerror or error}")
    except KeyboardInterrupt:
        fail(program, "interrupted", INTERRUPTED)
