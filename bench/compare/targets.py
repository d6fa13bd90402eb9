"""What the library is to reach, and whether it does."""

import math
from typing import NamedTuple

from bench.alone.startup import COLD

OURS = "numba_pack"
#: in the order of tables and legends
PEERS = ("PyTorch packed", "PyTorch padded", "ONNX Runtime", "OpenVINO")
#: the parts of the results that are rows of contenders
PARTS = ("forward", "training", "cold", "packing", "streaming", "symbols")
#: who is compared where packing is compared with padding
FILL = (OURS, f"{OURS}, padded")
#: a spread beyond this says that the machine did something else meanwhile: such a row is not judged
NOISE = 0.25


class Verdict(NamedTuple):
    """One target."""

    what: str
    limit: float
    #: whether the limit is the least that is allowed, or the most
    least: bool
    #: what was measured, by row
    values: dict
    unit: str = ""

    def holds(self, value):
        return value >= self.limit if self.least else value <= self.limit

    @property
    def worst(self):
        """The row nearest to the limit or farthest beyond it, and its value."""
        return (min if self.least else max)(self.values.items(), key=lambda item: item[1])

    @property
    def beyond(self):
        """The rows that miss the target, the worst first."""
        missing = [(name, value) for name, value in self.values.items() if not self.holds(value)]
        return sorted(missing, key=lambda item: item[1], reverse=not self.least)


def judge(results):
    """The verdicts on everything that was measured, in the order of the specification."""
    results = results | {part: [row for row in results[part] if noise(row) <= NOISE] for part in PARTS}
    forward, training = results["forward"], results["training"]
    both = [(row["id"], row) for row in forward] + [(f"{row['id']}, forward and backward", row) for row in training]
    single = [row for row in forward if row["dtype"] == "float32" and row["B"] >= 8 and row["H"] >= 128]
    single_training = [row for row in training if row["dtype"] == "float32" and row["B"] >= 8 and row["H"] >= 128]
    large = [row for row in results["packing"] if row["bytes"] >= 2e6]
    verdicts = []

    def least(what, limit, values):
        verdicts.append(Verdict(what, limit, True, values))

    def most(what, limit, values, unit=""):
        verdicts.append(Verdict(what, limit, False, values, unit))

    for cell, limit in (("LSTM", 0.92), ("GRU", 0.88)):
        rows = {row["id"]: against_gemm(row) for row in single if row["cell"] == cell}
        least(f"{cell} forward, float32, B >= 8, H >= 128, of sgemm's rate", limit, rows)
    for cell, limit in (("LSTM", 0.85), ("GRU", 0.80), ("RNN", 0.75)):
        rows = {row["id"]: against_gemm(row) for row in single_training if row["cell"] == cell}
        least(f"{cell} forward and backward, the same", limit, rows)
    least("float64, of dgemm's rate", 0.85, {n: against_gemm(row) for n, row in both if row["dtype"] == "float64"})
    for what, rows, mean in (("forward", forward, 2.0), ("forward and backward", training, 3.0)):
        ratios, equal = _against_best(rows), {row["id"] for row in rows if row["lengths"] == "equal" and row["B"] > 1}
        least(f"{what} against the best peer, equal lengths", 1.05, _only(ratios, equal))
        least(f"{what} against the best peer, every other row", 1.1, _only(ratios, ratios.keys() - equal))
        least(f"{what} against the best peer, geometric mean", mean, _geometric_mean(ratios))
    least("cold, forward, against the best peer, every row", 1.1, _against_best(results["cold"]))
    long = [row for row in training if row["T"] >= 800 and row["N"] < row["B"] * row["T"]]
    ratios = {row["id"]: against(row, "PyTorch packed") for row in long}
    least("forward and backward against PyTorch packed, T >= 800, unequal lengths", 25, _known(ratios))
    for part, what in (("forward", "forward"), ("training", "forward and backward")):
        rows = [row for row in results["fill"] if noise(row[part], *FILL) <= NOISE]
        fill = {f"fill {row['fill']:.2f}": packed_share(row[part]) / row["fill"] for row in rows}
        most(f"packed time / padded time of this library / fill, {what}", 1.15, fill)
    quiet = {name: row["median"] for name, row in _two_threads(results).items() if noise(row, "1", "2") <= NOISE}
    gains = {name: times["1"] / times["2"] for name, times in quiet.items() if times["1"] >= 1e-3}
    least("two threads against one, 1 ms and more", 1.8, gains)
    packing = {row["id"]: against(row, "PyTorch packed") for row in results["packing"]}
    least("packing against PyTorch", 5, _known(packing))
    least("packing, of memcpy's rate (2 MB and more)", 0.4, {row["id"]: against(row, "memcpy") for row in large})
    steps = [row for row in results["streaming"] if row["id"] == "LSTM-step-B1-H64"]
    cell = {row["id"]: against(row, "PyTorch cell") for row in steps}
    least("one LSTM step against torch's LSTMCell", 10, _known(cell))
    most("one LSTM step", 4, {row["id"]: row["median"][OURS] * 1e6 for row in steps}, " µs")
    bound = {row["id"]: against(row, "ONNX Runtime") for row in results["streaming"]}
    least("one step against ONNX Runtime with bound memory, every row", 1.3, _known(bound))
    if "startup" in results:
        found = results["startup"]
        most("import over NumPy's and Numba's own", 0.12, {"import": found["import"]["numba_pack, over these"]}, " s")
        for kind, call, limit in (
            ("cached", "first call", 0.6),
            (COLD, "first call", 4),
            (COLD, "first training step", 8),
        ):
            times = {cell: calls[call] for cell, calls in found.get(kind, {}).items()}
            most(f"{call}, {kind}", limit, times, " s")
    return [verdict for verdict in verdicts if verdict.values]


def noise(row, *judged):
    """The widest spread of those who are judged: unless they are named, this library and the fastest of the others."""
    if not judged:
        others = {name: time for name, time in row["median"].items() if not name.startswith(OURS) and name != "gemm"}
        judged = (OURS, *sorted(others, key=others.get)[:1])
    return max((row["spread"][name] for name in judged if name in row["spread"]), default=0.0)


def too_noisy(results):
    """The rows that are not judged."""
    found = [f"{part} {row['id']}" for part in PARTS for row in results[part] if noise(row) > NOISE]
    found += [f"threads {name}" for name, row in _two_threads(results).items() if noise(row, "1", "2") > NOISE]
    return found + [
        f"{row['id']}, {part}"
        for row in results["fill"]
        for part in ("forward", "training")
        if noise(row[part], *FILL) > NOISE
    ]


def _two_threads(results):
    return results.get("threads", {}).get("two", {})


def rate(row):
    """Operations a second of this library."""
    return row["operations"] / row["median"][OURS]


def against_gemm(row):
    return rate(row) / (row["gemm_operations"] / row["median"]["gemm"])


def against(row, name):
    """How many times the time of this library another contender takes; None if it took no part."""
    return row["median"][name] / row["median"][OURS] if name in row["median"] and OURS in row["median"] else None


def against_best(row):
    """The same for the fastest peer, and its name."""
    found = [(against(row, peer), peer) for peer in PEERS if peer in row["median"]]
    return min(found, default=None)


def lead(rows):
    """Of the rows that are judged: how many there are, in how many it is ahead, by how much in the mean and at least.

    None if there are none.
    """
    ratios = _against_best([row for row in rows if noise(row) <= NOISE])
    if not ratios:
        return None
    ahead = sum(ratio > 1 for ratio in ratios.values())
    return len(ratios), ahead, *_geometric_mean(ratios).values(), min(ratios.values())


def at_the_peak(results, part):
    """What the mean of `lead` would be if this library's operations ran at the peak of multiply-adds; None if unknown.

    No library gets beyond it, whose products are of all rows that there are: where the peers are nearer to the peak, or
    the CPU can do less between two loads, there is less to be ahead by.
    """
    peaks = results.get("ceilings", {}).get("operations")
    rows = [row for row in results[part] if noise(row) <= NOISE and against_best(row)]
    if not peaks or not rows:
        return None
    ratios = {row["id"]: against_best(row)[0] * peaks[f"peak {row['dtype']}"] / rate(row) for row in rows}
    return next(iter(_geometric_mean(ratios).values()))


def _against_best(rows):
    return {row["id"]: against_best(row)[0] for row in rows if against_best(row)}


def packed_share(row):
    """The time of this library on packed input as a part of its time on padded input."""
    return 1 / against(row, "numba_pack, padded")


def _only(ratios, names):
    return {name: ratio for name, ratio in ratios.items() if name in names}


def _known(values):
    return {name: value for name, value in values.items() if value is not None}


def _geometric_mean(values):
    return {f"{len(values)} rows": math.exp(sum(map(math.log, values.values())) / len(values))} if values else {}
