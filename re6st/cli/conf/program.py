"""What re6st-conf and its words share: names of files, exit codes, and how it speaks and ends."""

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
"""Exit codes beside 0. A CA that does not match its fingerprint and an unknown token are 1 (wire.md 11.4)."""


class ConfError(Exception):
    """What ends the program, in one line for the user, and its exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def say(what: str, text: str) -> None:
    print(f"{what:<8} {text}", flush=True)


def warn(text: str) -> None:
    print(f"{PROGRAM}: warning: {text}", file=sys.stderr, flush=True)


def carry_out(program: str, work: Callable[[], int], directory: Path) -> int:
    """Do it, and end the program with one line and its exit code where that fails."""
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
