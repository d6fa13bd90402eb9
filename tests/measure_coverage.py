"""Coverage of the package by its tests: Python lines that ran, and compiled lines that were compiled.

``pip install coverage``, then ``python tests/measure_coverage.py [arguments of pytest]``. Takes several minutes: with
NUMBA_JIT_COVERAGE=1 Numba tells coverage.py which lines it compiles, and a kernel from the disk cache tells nothing, so
all is compiled anew. See COVERAGE.md for what is left and why.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CONFIGURATION = """
[run]
source = numba_pack
core = ctrace
data_file = {data}
[report]
skip_covered = true
show_missing = true
# the bodies of functions that only their overloads in compiled code replace
exclude_also =
    raise NotImplementedError
"""


def main():
    os.environ["NUMBA_JIT_COVERAGE"] = "1"
    sys.path.insert(0, str(ROOT / "tests"))
    import numba_cache  # which points to the folder that pytest will use

    shutil.rmtree(os.environ["NUMBA_CACHE_DIR"])
    del numba_cache, os.environ["NUMBA_CACHE_DIR"]
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "coveragerc"
        configuration.write_text(CONFIGURATION.format(data=Path(folder) / "data"))
        coverage = [sys.executable, "-m", "coverage"]
        options = [f"--rcfile={configuration}"]
        tests = subprocess.run([*coverage, "run", *options, "-m", "pytest", "-q", *sys.argv[1:]], cwd=ROOT)
        subprocess.run([*coverage, "report", *options], cwd=ROOT, check=True)
    sys.exit(tests.returncode)


if __name__ == "__main__":
    main()
