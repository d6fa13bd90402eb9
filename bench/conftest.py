"""``pytest bench``: the comparison with pytest-benchmark. One group for each shape; in it, the libraries.

pytest bench                              all of it
pytest bench -k "B32-H128 and forward"    some
pytest bench --threads 4                  every library with four threads
pytest bench --benchmark-autosave         keep the numbers; --benchmark-compare shows what has changed since
"""

from functools import lru_cache

import pytest

from bench.tools import environment


def pytest_addoption(parser):
    parser.addoption("--threads", type=int, default=1, help="threads of every library under test (default: 1)")


def pytest_configure(config):
    environment.prepare(config.getoption("--threads"))


def pytest_report_header(config):
    versions = environment.versions()
    missing = [name for name in environment.PEERS if not versions[name]]
    found = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return [
        f"libraries: {found}; {config.getoption('--threads')} thread(s) each",
        *[f"libraries: {name} IS NOT INSTALLED, so it takes no part" for name in missing],
    ]


@pytest.fixture
def compete(benchmark, request):
    """Time one contender among others: its answer is compared with the first one's, then its ``run`` is timed."""
    from bench.compare.contenders import check  # it imports NumPy, which comes after the number of threads is set

    def time(classes, make, *arguments, rounding=0):
        try:
            contender = make(*arguments)
        except environment.Unavailable as reason:
            pytest.skip(f"{make.name}: {reason}")
        check(contender, _answer_of(classes[0], arguments), rounding)
        benchmark.group = f"{request.node.originalname.removeprefix('test_')} {arguments[0]}"
        benchmark(contender.run)

    return time


@lru_cache(maxsize=1)
def _answer_of(make, arguments):
    return make(*arguments).answer()
