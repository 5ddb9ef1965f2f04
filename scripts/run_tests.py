"""The whole suite: the fast tier first, then the emulated matrix and the examples, each on two workers.

Extra arguments go to pytest. Exits with the first failing tier's code.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIERS = (("fast", "not qemu and not slow"), ("emulated and slow", "qemu or slow"))


def main() -> int:
    # One thread a worker: two workers share the cores, and results do not depend on the thread count.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for name, marks in TIERS:
        print(f"tests: {name} tier", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", "-m", marks, *sys.argv[1:]]
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
