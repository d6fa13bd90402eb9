"""The results as Markdown."""

import math

from bench.compare import scaling
from bench.compare.targets import (
    NOISE,
    OURS,
    PARTS,
    PEERS,
    against,
    against_best,
    against_gemm,
    at_the_peak,
    judge,
    lead,
    noise,
    rate,
    too_noisy,
)
from bench.tools.isa import LOOSE
from bench.tools.markdown import of_machine, of_versions, table


def machines(found, pages):
    """What the reports of several machines come to; ``found`` are their results by the name of their folder.

    ``pages`` are the paths of what else was measured there.
    """
    parts = (("forward", "forward"), ("training", "forward and backward"), ("cold", "forward, cold"))
    rows = []
    for folder, results in sorted(found.items()):
        cells = [f"[{folder}]({folder}/report.md)", results["machine"]["cpu"], results["date"]]
        for part, _ in parts:
            count, ahead, mean, least = lead(results[part]) or (0, 0, 0, 0)
            cells.append(f"{mean:.2f}, {ahead} of {count}, {least:.2f}" if count else "-")
        peaks = [at_the_peak(results, part) for part in ("forward", "training")]
        cells.append(", ".join(f"{peak:.2f}" for peak in peaks if peak) or "-")
        rows.append(cells)
    header = ("report", "CPU", "measured", *[title for _, title in parts], "at the peak")
    parts = ["# Machine by machine", _MACHINES_TEXT, table(header, rows, left=(0, 1, 2))]
    if pages:
        parts.append("Beside a report: " + ", ".join(f"[{page}]({page})" for page in pages) + ".")
    return "\n\n".join(parts) + "\n"


def markdown(results, figures):
    """The whole report; ``figures`` maps names of files to captions."""
    parts = ["# numba_pack side by side with its peers", _machine(results), *_targets(results)]
    parts += [f"![{caption}]({name})\n\n{caption}" for name, caption in figures.items()]
    for part, title in (("forward", "## Forward"), ("training", "## Forward and backward")):
        if results[part]:
            parts += [title, _LAYERS_TEXT[part], _layers(results, part)]
    if results["cold"]:
        parts += ["## Forward, cold", _COLD_TEXT, _cold(results)]
    if results["packing"]:
        parts += ["## Packing", _PACKING_TEXT, _packing(results["packing"])]
    if results["streaming"]:
        parts += ["## One step of one sequence", _STREAMING_TEXT, _streaming(results["streaming"])]
    if results["symbols"]:
        parts += ["## Symbols", _SYMBOLS_TEXT, _symbols(results["symbols"])]
    if "threads" in results:
        parts += ["## Threads", _threads(results["threads"])]
    if "startup" in results:
        parts += ["## Start", _startup(results["startup"])]
    if "ceilings" in results:
        parts += ["## What the machine can do", _ceilings(results["ceilings"])]
    left_out = _left_out(results)
    if left_out:
        parts += ["## Left out", left_out]
    return "\n\n".join(parts) + "\n"


_MACHINES_TEXT = (
    "Time of the fastest peer over that of numba_pack, one thread: the geometric mean of all rows, in how many of them"
    " numba_pack is ahead, and the least. *At the peak*: both means, forward and with backward, if numba_pack's"
    " operations ran at the peak of fused multiply-adds: nothing gets beyond. A folder is named by the CPU and by the"
    " vectors that kernels are made of; on one CPU a second report may hold all contenders to fewer instructions than"
    " it has (`--isa`)."
)
_LAYERS_TEXT = {
    "forward": (
        "One thread. Milliseconds a call: median of the rounds, and the least in brackets. *against best*: the fastest"
        " peer's median over numba_pack's. *of gemm*: numba_pack's useful operations a second against those of NumPy's"
        " BLAS on 1024 x 1024 x 1024, timed in the same rounds."
    ),
    "training": "As above, with the gradients of all parameters; numba_pack packs its weights anew in each call.",
}
_COLD_TEXT = (
    "One thread, float32. As forward, but before each call an array of four times the second-level cache is read, as"
    " a service does other work between two requests. *cold / warm*: numba_pack's time over that of calls in a row."
)
_PACKING_TEXT = "float32, lengths log-normal up to 50 steps. Microseconds: median, and the least in brackets."
_STREAMING_TEXT = (
    "A call is one step, B = 1, I = H, with the state carried over: numba_pack by `layer.stepper()`, its cell, and "
    "calls of the layer; ONNX Runtime and OpenVINO with all memory bound. Microseconds: median, and the least in "
    "brackets."
)


_SYMBOLS_TEXT = (
    "An embedding of E columns for V symbols, the n-th drawn with a probability of 1 / n, and an LSTM over it."
    " Milliseconds: median, and the least in brackets. *numba_pack*: the table folded into the input weights, all of"
    " which training assigns anew in each call. *looked up*: by NumPy, and given to the LSTM as rows."
)


def _number(value):
    """At least three digits that count."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def _time(row, name, unit):
    if name not in row["median"]:
        return "-"
    return f"{_number(row['median'][name] / unit)} ({_number(row['min'][name] / unit)})"


def _machine(results):
    kind = ", a quick run" if results["quick"] else ""
    lines = [f"{results['date']}{kind}. {of_machine(results['machine'])}", of_versions(results["versions"])]
    missing = [name for name, version in results["versions"].items() if not version]
    lines += [f"**Not installed, so not compared: {name}.**" for name in missing]
    if results["isa"]:
        ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in results["held"].items())
        lines.append(
            f"All are held to {results['isa'].upper()} but {' and '.join(LOOSE)}, which looks at the CPU itself and has"
            f" whatever this one has. {scaling.SHAPES[0]} takes so many times as long as when nobody is held: {ratios}."
        )
    return "\n\n".join(lines)


def _targets(results):
    """Each target with its worst row, and below the table all rows that miss one; nothing if nothing is judged."""
    rows, missing = [], []
    for verdict in judge(results):
        worst, value = verdict.worst
        beyond = [f"{name} {_number(v)}" for name, v in verdict.beyond]
        reach = len(verdict.values) - len(beyond)
        limit = f"{'≥' if verdict.least else '≤'} {verdict.limit:g}{verdict.unit}"
        measured = f"{_number(value)}{verdict.unit}"
        share = f"{reach} of {len(verdict.values)}"
        rows.append((verdict.what, limit, measured, worst, share, "no" if beyond else "yes"))
        if beyond:
            missing.append(f"- {verdict.what}: {', '.join(beyond)}")
    if not rows:
        return []
    header = ("what", "limit", "worst row", "which", "rows that reach it", "reached")
    parts = ["## Targets", table(header, rows, left=(0, 3, 5))]
    if missing:
        parts += ["Rows beyond a limit:", "\n".join(missing)]
    noisy = too_noisy(results)
    if noisy:
        text = f"Not judged, since rounds differed by more than {NOISE:.0%} from quartile to quartile, time and again:"
        parts.append(f"{text} {', '.join(noisy)}.")
    return parts


def _peers(results, part):
    """The peers that took part, and how the table calls them."""
    found = [peer for peer in PEERS if any(peer in row["median"] for row in results[part])]
    return found, [f"{peer}, not held" if results["isa"] and peer in LOOSE else peer for peer in found]


def _layers(results, part):
    rows, (peers, titles) = results[part], _peers(results, part)
    body = []
    for row in rows:
        body.append(
            (
                row["id"],
                row["N"],
                f"{row['N'] / (row['B'] * row['T']):.2f}",
                *[_time(row, name, 1e-3) for name in (OURS, *peers)],
                _best(row),
                f"{rate(row) / 1e9:.0f}",
                f"{against_gemm(row):.2f}",
            )
        )
    return table(("shape", "N", "fill", OURS, *titles, "against best", "GFLOP/s", "of gemm"), body)


def _best(row):
    ratio, peer = against_best(row) or (None, "")
    if noise(row) > NOISE:
        return "not judged"
    return f"{ratio:.2f} {peer}" if ratio else "-"


def _cold(results):
    rows, (peers, titles) = results["cold"], _peers(results, "cold")
    body = []
    for row in rows:
        times = [_time(row, name, 1e-3) for name in (OURS, *peers)]
        body.append((row["id"], row["N"], *times, _best(row), f"{row['median'][OURS] / row['warm']:.2f}"))
    return table(("shape", "N", OURS, *titles, "against best", "cold / warm"), body)


def _packing(rows):
    body = []
    for row in rows:
        ratios = [against(row, name) for name in ("PyTorch packed", "memcpy")]
        times = [_time(row, name, 1e-6) for name in (OURS, "PyTorch packed", "memcpy")]
        shown = ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        body.append((row["id"], f"{row['bytes'] / 1e6:.1f}", *times, *shown))
    return table(
        ("call", "MB written", OURS, "PyTorch", "memcpy", "against PyTorch", "of memcpy"),
        body,
    )


def _streaming(rows):
    names = list(dict.fromkeys(name for row in rows for name in row["median"]))
    return table(("step", *names), [(row["id"], *[_time(row, name, 1e-6) for name in names]) for row in rows])


def _symbols(rows):
    names = (OURS, f"{OURS}, looked up", "PyTorch packed")
    body = []
    for row in rows:
        ratio = against(row, "PyTorch packed")
        times = [_time(row, name, 1e-3) for name in names]
        body.append((row["id"], row["N"], *times, f"{ratio:.2f}" if ratio else "-"))
    return table(("shape", "N", OURS, "looked up", "PyTorch packed", "against PyTorch"), body)


def _threads(threads):
    if not threads["two"]:
        return "This machine has one core."
    body = [(name, _time(row, "1", 1e-3), _time(row, "2", 1e-3), _gain(row)) for name, row in threads["two"].items()]
    parts = [
        "numba_pack in a process of its own. Milliseconds: median, and the least in brackets.",
        table(("shape", "one thread", "two threads", "one / two"), body),
    ]
    for shape, times in threads["all"].items():
        counts = list(times[OURS])
        body = [(name, *(f"{of[n] * 1e3:.3g}" for n in counts)) for name, of in times.items() if of]
        parts += [
            f"{shape}, forward, each library and number of threads in a process of its own. Milliseconds, medians.",
            table(("", *(f"{n} thread{'s' * (n != '1')}" for n in counts)), body),
        ]
    return "\n\n".join(parts)


def _gain(row):
    if noise(row, "1", "2") > NOISE:
        return "not judged"
    return f"{row['median']['1'] / row['median']['2']:.2f}"


def _startup(startup):
    rows = [(f"import: {name}", "", f"{seconds:.2f} s") for name, seconds in startup["import"].items()]
    for kind in [name for name in startup if name not in ("import", "overhead")]:
        for cell, calls in startup[kind].items():
            rows += [(f"{name}, {cell}", kind, f"{seconds:.2f} s") for name, seconds in calls.items()]
    rows += [(f"{name}: a call without work", "", f"{t * 1e6:.1f} µs") for name, t in startup["overhead"].items()]
    text = (
        "Each in fresh processes. *Cold*: nothing compiled yet. *With the import*: all from before the import of NumPy"
        " to the end of the call, or of the step.\n\n"
    )
    return text + table(("what", "cache", "time"), rows, left=(0, 1))


def _ceilings(ceilings):
    rows = [(name, f"{value / 1e9:.0f} GFLOP/s") for name, value in ceilings["operations"].items()]
    rows += [(f"reading from {level}", f"{value / 1e9:.0f} GB/s") for level, value in ceilings["bytes"].items()]
    return "One thread. *peak*: chains of fused multiply-adds in registers.\n\n" + table(("what", "at most"), rows)


def _left_out(results):
    """Who took no part, why, and where."""
    where = {}
    for part in PARTS:
        for row in results[part]:
            for name, reason in row["left_out"].items():
                where.setdefault((name, reason), {})[row["id"]] = None
    rows = [(name, reason, len(ids) if len(ids) > 6 else ", ".join(ids)) for (name, reason), ids in where.items()]
    return table(("contender", "why", "rows"), rows, left=(0, 1, 2)) if rows else ""
