"""The comparison with other libraries: what is timed, what is judged, and in which folder it is told."""

import json
import os
import subprocess
import sys
from pathlib import Path
from time import sleep

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # `pytest` alone does not have the folder that it is run in there

from bench.compare import report, suite, tables, targets
from bench.tools import isa
from bench.tools.environment import folder_of
from bench.tools.timing import SAMPLE, interleave, samples, spread

ROOT = Path(__file__).parents[2]
NOISY = {"numba_pack": 2 * targets.NOISE, "OpenVINO": 0.01}


def row(name, ours=1.0, peer=2.0, **spreads):
    median = {"numba_pack": ours, "OpenVINO": peer}
    return {"id": name, "N": 50, "median": median, "min": median, "warm": ours / 4, "spread": spreads, "left_out": {}}


def results(**parts):
    machine = {"cpu": "a CPU", "host": "znver5", "target": "znver3", "register_bits": 256, "cores": 1, "caches": {}}
    found = {part: [] for part in (*targets.PARTS, "fill")}
    about = {"machine": machine, "versions": {"numpy": "2"}, "date": "today", "quick": False, "isa": None, "held": {}}
    return found | about | parts


def cold_verdict(found):
    return next((verdict for verdict in targets.judge(found) if verdict.what.startswith("cold")), None)


def test_other_work_comes_before_each_call_that_is_cold_and_is_not_timed():
    calls = []

    def work():
        calls.append("work")
        sleep(1e-3)

    functions = {name: lambda name=name: calls.append(name) for name in ("one", "other")}
    times = interleave(functions, 0.0, before=work)
    assert calls[::2] == ["work"] * (len(calls) // 2) and calls[1::2].count("one") == len(calls) // 4
    assert all(values.max() < 1e-3 for values in times.values())


def test_a_warm_sample_begins_after_a_call_that_is_not_timed():
    """Of two functions in turns, the first call of each turn takes longer than the sample may."""
    last = []

    def call(name):
        if last[-1:] != [name]:
            sleep(2 * SAMPLE)
        last.append(name)

    functions = {name: lambda name=name: call(name) for name in ("one", "other")}
    times = interleave(functions, 0.0)
    assert all(values[1:].max() < SAMPLE for values in times.values())


def test_equal_lengths_are_judged_by_a_limit_of_their_own():
    shape = {"dtype": "float32", "B": 32, "H": 64, "T": 50, "operations": 1.0, "gemm_operations": 1.0}
    rows = [row(name, peer=1.07) | shape | {"lengths": lengths} for name, lengths in (("a", "equal"), ("b", "heavy"))]
    for one in rows:
        one["median"]["gemm"] = 1.0
    judged = {verdict.what: verdict for verdict in targets.judge(results(forward=rows))}
    equal = judged["forward against the best peer, equal lengths"]
    other = judged["forward against the best peer, every other row"]
    assert equal.values == {"a": 1.07} and not equal.beyond
    assert other.values == {"b": 1.07} and other.beyond


def test_short_calls_of_several_rounds_make_a_sample():
    assert samples([SAMPLE / 8, 3 * SAMPLE / 8] * 6).tolist() == [SAMPLE / 4] * 3
    assert samples([2 * SAMPLE, 3 * SAMPLE]).tolist() == [2 * SAMPLE, 3 * SAMPLE]
    assert samples([SAMPLE / 8] * 3).tolist() == [SAMPLE / 8]


def test_the_spread_is_from_quartile_to_quartile_as_a_part_of_the_median():
    assert spread([1.0, 2.0, 4.0, 5.0, 9.0]) == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("spreads", "tries"),
    [([0.01], 1), ([9.0, 0.01], 2), ([9.0, 7.0, 8.0], suite.TRIES)],
    ids=["quiet", "quiet at last", "never quiet"],
)
def test_a_row_is_measured_again_until_it_is_quiet_and_else_the_quietest_is_kept(monkeypatch, spreads, tries):
    found = [row("a", **{"numba_pack": x, "OpenVINO": 0.01}) for x in spreads]
    left = iter(found)
    monkeypatch.setattr(suite, "interleave", lambda functions, seconds: None)
    monkeypatch.setattr(suite, "summary", lambda times: next(left))
    kept = suite.settled({}, 1.0)
    assert len(found) - len(list(left)) == tries
    assert targets.noise(kept) == min(spreads)


def test_only_the_spread_of_whom_the_ratio_is_made_of_counts():
    slow = row("a", numba_pack=0.01, OpenVINO=0.02)
    slow["median"] |= {"PyTorch packed": 9.0, "numba_pack, layer": 9.0, "gemm": 0.1}
    slow["spread"] |= {"PyTorch packed": 5.0, "numba_pack, layer": 5.0, "gemm": 5.0}
    assert targets.noise(slow) == 0.02


def test_a_noisy_row_is_not_judged_and_the_report_says_so():
    quiet, noisy = row("quiet", numba_pack=0.01), row("noisy", peer=0.5, **NOISY)
    found = results(cold=[quiet, noisy])
    assert cold_verdict(found).values == {"quiet": 2.0}
    assert targets.lead(found["cold"]) == (1, 1, pytest.approx(2.0), 2.0)
    assert cold_verdict(results(cold=[noisy])) is None and targets.lead([noisy]) is None
    text = tables.markdown(found, {})
    assert "time and again: cold noisy." in text
    assert "| noisy | 50 | 1000 (1000) | 500 (500) | not judged | 4.00 |" in text


def test_threads_are_not_judged_by_noisy_rows_either():
    def times(one, two, spread):
        return {"median": {"1": one, "2": two}, "min": {"1": one, "2": two}, "spread": {"1": 0.01, "2": spread}}

    two = {"quiet": times(0.002, 0.001, 0.02), "noisy": times(0.002, 0.002, 0.6)}
    everyone = {"a shape": {"numba_pack": {"1": 0.004, "2": 0.0021}, "PyTorch packed": {}}}
    found = results(threads={"two": two, "all": everyone})
    (verdict,) = [verdict for verdict in targets.judge(found) if verdict.what.startswith("two threads")]
    assert verdict.values == {"quiet": 2.0}
    text = tables.markdown(found, {})
    assert "time and again: threads noisy." in text
    assert "| noisy | 2.00 (2.00) | 2.00 (2.00) | not judged |" in text
    assert "| numba_pack | 4 | 2.1 |" in text and "| PyTorch packed |" not in text


def test_the_mean_at_the_peak_is_what_the_operations_allow():
    """1e9 operations, a peak of 4e9 a second: no less than 0.25 s, in which the fastest peer takes 0.75 s."""
    one = row("a") | {"operations": 1e9, "dtype": "float32"}
    one["median"] |= {"numba_pack": 0.5, "OpenVINO": 0.75}
    ceilings = {"operations": {"peak float32": 4e9}}
    assert targets.at_the_peak(results(forward=[one], ceilings=ceilings), "forward") == pytest.approx(3.0)
    assert targets.at_the_peak(results(forward=[one]), "forward") is None
    assert targets.at_the_peak(results(ceilings=ceilings), "forward") is None


def test_the_report_names_who_cannot_be_held():
    loose = row("a")
    loose["median"]["ONNX Runtime"] = 1.5
    held = tables.markdown(results(cold=[loose], isa="avx2", held={"numba_pack": 1.8, "ONNX Runtime": 1.01}), {})
    assert "All are held to AVX2 but ONNX Runtime" in held and "ONNX Runtime 1.01." in held
    assert "| shape | N | numba_pack | ONNX Runtime, not held | OpenVINO |" in held
    assert "| shape | N | numba_pack | ONNX Runtime | OpenVINO |" in tables.markdown(results(cold=[loose]), {})


@pytest.mark.parametrize(
    ("host", "bits", "folder"),
    [
        ("znver5", 512, "zen5-avx512"),
        ("znver5", 256, "zen5-avx2"),
        ("emeraldrapids", 512, "emeraldrapids-avx512"),
        ("neoverse-n1", 128, "neoverse-n1-128bit"),
    ],
)
def test_a_folder_is_named_by_the_cpu_and_the_vectors_of_the_kernels(host, bits, folder):
    assert folder_of({"host": host, "register_bits": bits}) == folder


def test_each_folder_of_results_is_of_the_machine_that_it_is_named_by_and_the_page_has_them_all():
    found = {path.parent.name: json.loads(path.read_text()) for path in (ROOT / "bench/results").glob("*/results.json")}
    assert found and all(folder_of(results["machine"]) == name for name, results in found.items())
    assert (ROOT / "bench/results/README.md").read_text() == report.listed()


def test_openblas_chooses_for_itself_unless_all_are_held(monkeypatch):
    with monkeypatch.context() as changed:
        changed.setattr(os, "environ", {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_L2_SIZE": "512"})
        isa.hold(None)
        assert os.environ == {}
        isa.hold("avx2")
        assert os.environ == isa.variables("avx2")


def test_numba_is_held_to_registers_that_the_instructions_have():
    """Named alone, a CPU without AVX-512 would still be given its registers where this CPU has them."""
    variables = isa.variables("avx2")
    assert "+avx512" not in variables["NUMBA_CPU_FEATURES"]
    assert isa.variables(None) == {}
    if "+avx2," in variables["NUMBA_CPU_FEATURES"]:
        environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        code = (
            "from numba.core.registry import cpu_target; from numba_pack.simd.machine import MACHINE\n"
            "print(MACHINE.register_bytes, cpu_target.target_context.codegen().magic_tuple()[2].count('+avx512'))"
        )
        process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert process.stdout.split() == ["32", "0"], process.stderr
