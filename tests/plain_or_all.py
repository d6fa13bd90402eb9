"""A pytest plugin: plain ``pytest`` leaves out what is marked slow, ``pytest --all`` runs it, too; both on two cores.

Slow is what takes long and shows what something quick shows of the common case: every pair of a sweep, the soak, other
processors, the simulator. Each public function, cell and dtype has quick tests. A doctest that imports a library which
is not installed is skipped. What plain ``pytest`` has skipped, ``pytest --skipped`` runs alone, once the libraries that
were missing are there; ``pytest --all --skipped`` runs all that plain ``pytest`` did not.

``setup.cfg`` loads this module with ``-p``: an option must be known before the folder of its ``conftest.py`` is found.
"""

import os
import re
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

LEFT_OUT = pytest.StashKey[int]()  # how many tests
SKIPPED = "plain_or_all/skipped"  # in pytest's cache: names of tests, and of files that were skipped as a whole


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="run the tests that are marked slow, too")
    parser.addoption(
        "--skipped",
        action="store_true",
        help="run only what the last plain pytest skipped, and with --all what it left out",
    )


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config):
    """The whole suite runs in two processes, where pytest-xdist is installed and neither ``-n`` nor ``--pdb`` given.

    More would compile the same kernels at the same time. A file is not divided, since its tests share what they compile
    and its fixtures. Files that are named run in this process, which starts sooner; so does pytest-cov, which has
    looked for ``-n`` by now.
    """
    option = config.option
    whole = config.args_source == pytest.Config.ArgsSource.TESTPATHS and not hasattr(config, "workerinput")
    alone = option.usepdb or getattr(option, "cov_source", None)
    if whole and cpus() > 1 and not alone and getattr(option, "numprocesses", 0) is None:
        option.numprocesses, option.dist = 2, "loadfile"
    option.loadscopereorder = False  # what takes long is in files of few tests, which would come last
    if whole and not option.all and not option.skipped:
        config.pluginmanager.register(Skipped(config))
    return (yield)


class Skipped:
    """Keeps the names of what is skipped in a run."""

    def __init__(self, config):
        self.config, self.names = config, set()

    def pytest_runtest_logreport(self, report):
        if report.skipped:
            self.names.add(report.nodeid)

    def pytest_collectreport(self, report):
        if report.skipped:
            self.names.add(report.nodeid)

    def pytest_sessionfinish(self):
        if hasattr(self.config, "cache"):
            self.config.cache.set(SKIPPED, sorted(self.names))


def was_skipped(item, names):
    """Whether it was, or its file, or the function while there was nothing to call it with."""
    function = item.nodeid.partition("[")[0]
    return not names.isdisjoint((item.nodeid, item.nodeid.partition("::")[0], f"{function}[NOTSET]"))


def imported(example):
    """The library that a line of a doctest imports, if it is not installed."""
    found = re.match(r"import (\w+)", example.source)
    return found[1] if found and find_spec(found[1]) is None else None


def cpus():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pytest_collection_modifyitems(config, items):
    for item in items:
        missing = [name for name in map(imported, item.dtest.examples if hasattr(item, "dtest") else ()) if name]
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"the example needs {missing[0]}"))
    if config.getoption("skipped"):
        names = set(config.cache.get(SKIPPED, []))
        chosen = {item for item in items if "slow" in item.keywords or was_skipped(item, names)}
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]
    slow = [item for item in items if "slow" in item.keywords]
    quick = [item for item in items if "slow" not in item.keywords]
    if config.getoption("all"):
        items[:] = slow + quick  # what takes longest first, lest one process wait for the other
        return
    items[:] = quick
    if slow:
        config.hook.pytest_deselected(items=slow)
    config.stash[LEFT_OUT] = len(slow)
    if hasattr(config, "workeroutput"):
        config.workeroutput["left_out"] = [item.nodeid for item in slow]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Of pytest-xdist, whose workers have collected all tests each and tell the main process of those left out."""
    left_out = getattr(node, "workeroutput", {}).get("left_out", [])
    if left_out and LEFT_OUT not in node.config.stash:
        node.config.stash[LEFT_OUT] = len(left_out)
        node.config.hook.pytest_deselected(items=[SimpleNamespace(nodeid=name) for name in left_out])


def pytest_terminal_summary(terminalreporter, config):
    left_out = config.stash.get(LEFT_OUT, 0)
    if left_out:
        terminalreporter.write_line(f"{left_out} slow tests were left out: pytest --all runs them, too.")
