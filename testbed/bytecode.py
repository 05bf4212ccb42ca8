"""The bytecode of our programs: as a package compiles them when it is installed, whatever runs the test bed.

Where Python is told to write none, each node of a bed would compile two hundred modules as it starts: that takes as
long as all else that it does then.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

MODULES = "re6st.cli.registry.main", "re6st.cli.conf.main", "re6st.cli.node.main", "re6st.web.server"


@cache
def bytecode(root: Path) -> dict[str, str]:
    """What the environment of our programs says of it; the first call compiles the package below `root`.

    It is kept beside the checkout, which may be somebody else's, and goes when this process ends.
    """
    directory = tempfile.mkdtemp(prefix="re6st-bytecode-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    said = {"PYTHONPYCACHEPREFIX": directory, "PYTHONDONTWRITEBYTECODE": ""}
    words = [sys.executable, "-c", f"import {', '.join(MODULES)}"]
    subprocess.run(words, env=os.environ | said | {"PYTHONPATH": str(root)}, check=False, stderr=subprocess.DEVNULL)
    return said
