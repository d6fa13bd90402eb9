"""The whole comparison with one command: measure, judge, and write tables and figures.

    python -m bench.compare.report            all of it, some 15 minutes
    python -m bench.compare.report --quick    within 2 minutes, once the kernels are compiled
    python -m bench.compare.report --only GRU-B32
    python -m bench.compare.report --isa avx2 with all contenders held to AVX2, as far as they can be

A full run goes to a folder of ``bench/results`` that is named by the machine, any other to ``build/bench``, unless
``--output`` says otherwise. The page of ``bench/results`` tells what the reports there come to.
"""

import argparse
import json
from pathlib import Path

from bench.tools import isa
from bench.tools.environment import ROOT, folder_of, machine, prepare

RESULTS = ROOT / "bench" / "results"


def list_results():
    """Write what lists the results of all machines."""
    (RESULTS / "README.md").write_text(listed())


def listed():
    """What lists the results of all machines."""
    from bench.compare import tables

    found = {path.parent.name: json.loads(path.read_text()) for path in RESULTS.glob("*/results.json")}
    pages = sorted(path.relative_to(RESULTS).as_posix() for path in RESULTS.glob("*/*.md") if path.stem != "report")
    return tables.machines(found, pages)


def page_of(name, partly):
    """Where a comparison beside the report writes its page: into the folder of this machine, if it is a whole one."""
    return (ROOT / "build" / "bench" if partly else RESULTS / folder_of(machine())) / name


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few rows, and less time for each")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long a row takes, all contenders together")
    parser.add_argument("--only", metavar="PATTERN", help="only rows whose ids contain this")
    parser.add_argument("--redraw", action="store_true", help="write report and figures anew from the numbers there")
    parser.add_argument("--isa", choices=isa.NAMES, help="hold all contenders to these instructions")
    parser.add_argument("--output", type=Path, help="folder of the results")
    arguments = parser.parse_args()

    isa.hold(arguments.isa)
    prepare(threads=1)
    from bench.compare import figures, tables

    partly = arguments.quick or arguments.only
    output = arguments.output or (ROOT / "build" / "bench" if partly else RESULTS / folder_of(machine()))
    numbers = output / "results.json"
    if arguments.redraw:
        results = json.loads(numbers.read_text())
    else:
        from bench.compare import suite

        results = suite.run(arguments.quick, arguments.only, arguments.seconds, arguments.isa)
        output.mkdir(parents=True, exist_ok=True)
        numbers.write_text(json.dumps(results, indent=1) + "\n")
        results = json.loads(numbers.read_text())  # the same, drawn now or later
    report = tables.markdown(results, figures.draw(results, output))
    (output / "report.md").write_text(report)
    if output.parent == RESULTS:
        list_results()
    print(report.split("\n## Forward")[0])
    print(f"\nThe report is {output / 'report.md'}")


if __name__ == "__main__":
    main()
