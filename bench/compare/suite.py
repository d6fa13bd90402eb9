"""The whole comparison, measured: a dictionary of plain numbers, which `report.py` keeps as JSON.

Keys: "machine", "versions", "date", "quick"; "isa", which all were held to, and "held", how far (`scaling.held`);
"forward", "training", "cold", "fill", "packing", "streaming", "symbols": lists of rows, each with its "id", the
"median", "min", "spread" and "rounds" of each contender, and why others were "left_out"; "ceilings", "threads" and
"startup": what `ceilings.py`, `scaling.py` and `startup.py` measure.
"""

import datetime

from tqdm import tqdm

from bench.alone import ceilings, startup
from bench.compare import scaling
from bench.compare.contenders import (
    LAYERS,
    NumbaPack,
    NumbaPackPadded,
    TorchPacked,
    TorchPadded,
    layer_rounding,
    line_up,
)
from bench.compare.contenders_packing import PACKERS
from bench.compare.contenders_streaming import STREAMS
from bench.compare.contenders_symbols import EMBEDDED
from bench.compare.targets import FILL, NOISE, OURS, PARTS, noise
from bench.tools import workloads
from bench.tools.environment import machine, versions
from bench.tools.timing import interleave, summary, sweeper

#: how often a row is measured at most
TRIES = 3


class Plan:
    """What to measure, and for how long: seconds a row, shared by its contenders."""

    def __init__(self, quick, pattern, seconds):
        self.quick = quick
        self.seconds = 0.8 if quick else seconds
        chosen = [self._forward, self._training, self._cold, self._fill, self._packing, self._streaming, self._symbols]
        self.steps = [step for steps in chosen for step in steps() if not pattern or pattern in step[1]]
        whole = [("ceilings", "ceilings"), ("threads", "threads"), ("startup", "startup")]
        self.steps += [step for step in whole if not pattern or pattern in step[1]]

    def _forward(self):
        return [("forward", str(w), w) for w in workloads.FORWARD if not self.quick or str(w) in workloads.QUICK]

    def _training(self):
        return [("training", str(w), w) for w in workloads.TRAINING if not self.quick or str(w) in workloads.QUICK]

    def _cold(self):
        return [("cold", f"cold {w}", w) for w in (workloads.COLD[:1] if self.quick else workloads.COLD)]

    def _fill(self):
        return [("fill", f"fill {w}", w) for w in (workloads.FILL[::3] if self.quick else workloads.FILL)]

    def _packing(self):
        return [("packing", str(p), p) for p in workloads.PACKING if not self.quick or p.B == 128]

    def _streaming(self):
        return [("streaming", str(s), s) for s in workloads.STREAMING if not self.quick or str(s) == "LSTM-step-B1-H64"]

    def _symbols(self):
        return [("symbols", str(w), w) for w in workloads.SYMBOLS if not self.quick or w.V == 256]


def run(quick=False, pattern=None, seconds=4.0, held_to=None):
    """Measure all of it, or what a quick run needs, or the rows whose ids contain a pattern.

    ``held_to`` names the instructions that the process was held to when it was prepared.
    """
    plan = Plan(quick, pattern, seconds)
    found = {
        "machine": machine(),
        "versions": versions(),
        "date": datetime.date.today().isoformat(),
        "quick": quick,
        "isa": held_to,
        "held": scaling.held(held_to, plan.seconds / 2) if held_to else {},
        **{part: [] for part in (*PARTS, "fill")},
    }
    progress = tqdm(plan.steps)
    for part, name, *workload in progress:
        progress.set_description(name)
        if workload:
            found[part].append(_ROWS[part](workload[0], plan))
        else:
            found[part] = _WHOLE[part](plan)
    return found


def settled(functions, seconds, *judged, **options):
    """The summary of functions in turns; measured again while the machine is too noisy, and then the quietest.

    ``judged`` names those whose spread tells: see `noise`.
    """
    tries = []
    while len(tries) < TRIES and (not tries or noise(tries[-1], *judged) > NOISE):
        tries.append(summary(interleave(functions, seconds, **options)))
    return min(tries, key=lambda found: noise(found, *judged))


def _layer_row(workload, plan, training):
    """One shape with all contenders, and BLAS's matrix product among them, so that their ratio is of one moment."""
    problem = workloads.Problem(workload)
    ready, left_out = line_up(LAYERS, problem, training, rounding=layer_rounding(problem, training))
    functions = {contender.name: contender.run for contender in ready} | {"gemm": ceilings.gemm(workload.dtype)}
    return {
        "id": str(workload),
        **{name: getattr(workload, name) for name in ("cell", "B", "H", "lengths", "dtype")},
        "T": problem.T,
        "N": problem.N,
        "operations": workload.operations(problem.N, training),
        "gemm_operations": ceilings.gemm_operations(),
        "weight_bytes": workload.weight_bytes(problem.T),
        "left_out": left_out,
        **settled(functions, plan.seconds),
    }


def _cold_row(workload, plan):
    """One shape, with the second-level cache emptied before each call; and this library's calls in a row."""
    problem = workloads.Problem(workload)
    ready, left_out = line_up(LAYERS, problem, False, rounding=layer_rounding(problem, False))
    functions = {contender.name: contender.run for contender in ready}
    found = settled(functions, plan.seconds / 2, before=sweeper(4 * machine()["caches"]["L2"]))
    warm = summary(interleave({OURS: functions[OURS]}, plan.seconds / 8))["median"][OURS]
    return {"id": str(workload), "N": problem.N, "left_out": left_out, "warm": warm, **found}


def _fill_row(workload, plan):
    """Packed and padded, of this library and of PyTorch: forward, and forward and backward."""
    problem = workloads.Problem(workload)
    classes = (NumbaPack, NumbaPackPadded, TorchPacked, TorchPadded)
    row = {"id": str(workload), "fill": problem.N / (workload.B * problem.T)}
    for part, training in (("forward", False), ("training", True)):
        ready, left_out = line_up(classes, problem, training, rounding=layer_rounding(problem, training))
        functions = {contender.name: contender.run for contender in ready}
        row[part] = {"left_out": left_out, **settled(functions, plan.seconds / 2, *FILL)}
    return row


def _packing_row(workload, plan):
    ready, left_out = line_up(PACKERS, workload)
    found = settled({contender.name: contender.run for contender in ready}, plan.seconds / 4)
    written = next(contender for contender in ready if contender.name == "memcpy").nbytes
    return {"id": str(workload), "bytes": written, "left_out": left_out, **found}


def _streaming_row(step, plan):
    ready, left_out = line_up(STREAMS, step, rounding=100)
    found = settled({contender.name: contender.run for contender in ready}, plan.seconds / 4)
    return {"id": str(step), "left_out": left_out, **found}


def _symbols_row(workload, plan):
    problem, training = workloads.SymbolsProblem(workload), workload.training
    ready, left_out = line_up(EMBEDDED, problem, training, rounding=layer_rounding(problem, training))
    found = settled({contender.name: contender.run for contender in ready}, plan.seconds)
    return {"id": str(workload), "N": problem.N, "left_out": left_out, **found}


_ROWS = {
    "forward": lambda workload, plan: _layer_row(workload, plan, training=False),
    "training": lambda workload, plan: _layer_row(workload, plan, training=True),
    "cold": _cold_row,
    "fill": _fill_row,
    "packing": _packing_row,
    "streaming": _streaming_row,
    "symbols": _symbols_row,
}
_WHOLE = {
    "ceilings": lambda plan: ceilings.measure(plan.seconds / 2),
    "threads": lambda plan: scaling.measure(1.0, False, [scaling.SHAPE]) if plan.quick else scaling.measure(2.0),
    "startup": lambda plan: startup.measure(1, ["LSTM"]) if plan.quick else startup.measure(),
}
