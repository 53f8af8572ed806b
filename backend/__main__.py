# SPDX-License-Identifier: GPL-3.0-or-later
"""Entry point of ``python -m backend``."""

import os
import sys

from backend.cli.main import main

if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads wait for each other busily
    sys.exit(main())
