"""The engine on processors other than this one: Numba is told to compile for them, in processes of their own.

What multiplies short numbers is asked of LLVM for processors by name, and of Linux.
"""

import os
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest

from numba_pack import _cache
from numba_pack.packing import checks
from numba_pack.simd import machine
from numba_pack.simd.lanes import lanes_of
from numba_pack.simd.machine import ARCHITECTURE, DOTS, MACHINE, Dots

SCRIPT = Path(__file__).parents[1] / "check_machine.py"
#: name: Numba's CPU name and features, and the bytes of a vector register that the engine should find there
MACHINES = {
    "avx2": ("haswell", "+avx2,+fma,+bmi2", 32),
    "portable": ("generic", "", 16),
}
#: what `check_machine.py` knows to check
CHECKS = ["layers", "noise", "onnx", "activations", "factors", "tiles"]


def reason_to_skip(name):
    """Why code for another processor is not tried here, if it is not."""
    if MACHINE.register_bytes == MACHINES[name][2]:
        return "its vectors are those of this processor, which all other tests try"
    features = llvm.get_host_cpu_features()
    if name == "avx2" and not all(features.get(feature, False) for feature in ("avx2", "fma", "bmi2")):
        return "this processor cannot run it"
    return None


@pytest.fixture(scope="module")
def processes():
    """All checks on all machines, started at once, since they take their time to compile."""
    started = {}
    for name, (cpu, features, _) in MACHINES.items():
        if reason_to_skip(name) is None:
            environment = {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
            environment["PYTHONPATH"] = os.pathsep.join([str(SCRIPT.parent.parent), *sys.path])
            for check in CHECKS:
                started[name, check] = subprocess.Popen(
                    [sys.executable, SCRIPT, check],
                    env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                )  # fmt: skip
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", MACHINES)
def test_results_are_right_on_other_processors(processes, name, check):
    if reason := reason_to_skip(name):
        pytest.skip(reason)
    output, errors = processes[name, check].communicate(timeout=600)
    assert output.split() == [str(MACHINES[name][2]), "ok"], errors


def test_the_widest_registers_of_this_processor_are_used():
    if os.environ.get("NUMBA_CPU_NAME"):
        pytest.skip("Numba is told to compile for another processor")
    features = llvm.get_host_cpu_features()
    wide = features.get("avx2", False) and features.get("fma", False)
    expected = 64 if features.get("avx512f", False) else 32 if wide else 16
    assert MACHINE.register_bytes == expected
    assert lanes_of(np.float32) == expected // 4
    assert lanes_of(np.float64) == expected // 8


on_x86_64 = pytest.mark.skipif(ARCHITECTURE != "x86_64", reason="LLVM may not know the processors of another kind")
#: what multiplies bfloat16 and int8, without the matrix unit
VECTOR_UNITS = {
    "sapphirerapids": ("avx512_bf16", "avx512_vnni"),
    "znver4": ("avx512_bf16", "avx512_vnni"),
    "znver5": ("avx512_bf16", "avx512_vnni"),
    "icelake-server": ("widened", "avx512_vnni"),
    "cascadelake": ("widened", "avx512_vnni"),
    "skylake-avx512": ("widened", "widened"),
    "alderlake": ("widened", "avx_vnni"),
    "arrowlake": ("widened", "avx_vnni"),
    "sierraforest": ("widened", "avx_vnni"),
    "znver3": ("widened", "widened"),
    "haswell": ("widened", "widened"),
    "x86-64": ("widened", "widened"),
}
#: those that round to bfloat16 by an instruction, whether or not one multiplies it
ROUND = {"sapphirerapids", "znver4", "znver5", "arrowlake", "sierraforest"}
#: of those with vectors of 512 bits, what multiplies int8 when they are held to 256
HELD = {"znver5": "avx_vnni", "sapphirerapids": "avx_vnni", "znver4": "widened", "cascadelake": "widened"}
WITH_TILES = ["sapphirerapids", "graniterapids"]


@pytest.fixture
def processor(monkeypatch):
    """Have LLVM asked for the processor of a name, and Linux permit its matrix unit or not."""

    def take(name, permitted, features=""):
        monkeypatch.setattr(machine, "_target", lambda: ("x86_64-unknown-linux-gnu", name, features))
        monkeypatch.setattr(machine, "MACHINE", machine._probe())
        monkeypatch.setattr(machine, "_permitted", lambda: permitted)

    return take


@on_x86_64
@pytest.mark.parametrize("name", VECTOR_UNITS)
def test_short_numbers_are_multiplied_by_the_best_that_a_vector_unit_has(processor, name):
    processor(name, permitted=False)
    assert machine._dots(None) == Dots(*VECTOR_UNITS[name], plain_tiles=True)


@on_x86_64
@pytest.mark.parametrize("name", VECTOR_UNITS)
def test_floats_are_rounded_to_bfloat16_by_an_instruction_where_there_is_one(processor, name):
    processor(name, permitted=False)
    assert machine.rounds_to_bfloat16.__wrapped__() == (name in ROUND)


@on_x86_64
@pytest.mark.parametrize("name", HELD)
def test_a_cpu_may_be_held_to_vectors_of_256_bits(processor, name):
    processor(name, permitted=True, features="-avx512f")
    assert machine.MACHINE[1:] == (32, 12, True)
    assert machine._dots(None) == Dots("widened", HELD[name], plain_tiles=True)
    assert not machine.rounds_to_bfloat16.__wrapped__()


@pytest.mark.parametrize("name", ["generic", "cortex-a72", "neoverse-n1", "neoverse-v2", "apple-m1"])
def test_an_arm_has_vectors_of_128_bits_and_rounds_to_bfloat16_without_a_library(monkeypatch, name):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    monkeypatch.setattr(machine, "_target", lambda: ("aarch64-unknown-linux-gnu", name, ""))
    monkeypatch.setattr(machine, "ARCHITECTURE", "aarch64")
    assert machine._probe() == (name, 16, 24, True)
    monkeypatch.setattr(machine, "MACHINE", machine._probe())
    assert machine._dots(None) == Dots("widened", "widened", plain_tiles=True)
    assert machine.rounds_to_bfloat16.__wrapped__()


@on_x86_64
@pytest.mark.parametrize("name", [*VECTOR_UNITS, *WITH_TILES])
def test_the_matrix_unit_comes_first_where_there_is_one_that_may_be_used(processor, name):
    processor(name, permitted=True)
    assert (machine._dots(None) == Dots("amx", "amx", plain_tiles=False)) == (name in WITH_TILES)


@on_x86_64
@pytest.mark.skipif(sys.platform != "linux", reason="there is no file that tells what the processor has")
def test_linux_permits_the_matrix_unit_where_it_shows_one():
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    assert machine._permitted() == ("amx_tile" in flags)


@on_x86_64
@pytest.mark.parametrize("asked, plain", [("amx", False), ("amx_plain", True)])
def test_plain_loops_stand_in_for_the_matrix_unit_where_that_is_missing_or_where_they_are_asked_for(
    processor, asked, plain
):
    processor("sapphirerapids", permitted=True)
    assert machine._dots(asked) == Dots("amx", "amx", plain)
    processor("haswell", permitted=True)
    assert machine._dots(asked) == Dots("amx", "amx", plain_tiles=True)


@on_x86_64
def test_a_machine_may_be_told_to_do_with_less_than_it_has(processor):
    processor("sapphirerapids", permitted=True)
    assert machine._dots("avx512") == Dots("avx512_bf16", "avx512_vnni", plain_tiles=True)
    assert machine._dots("widened") == Dots("widened", "widened", plain_tiles=True)
    processor("alderlake", permitted=False)
    assert machine._dots("avx2") == Dots("widened", "avx_vnni", plain_tiles=True)


@on_x86_64
@pytest.mark.parametrize(
    "name, asked, can",
    [
        ("sapphirerapids", "avx2", "amx, amx_plain, avx512, widened"),
        ("sapphirerapids", "AMX", "amx, amx_plain, avx512, widened"),
        ("alderlake", "avx512", "amx, amx_plain, avx2, widened"),
        ("haswell", "avx512", "amx, amx_plain, widened"),
    ],
)
def test_what_a_machine_cannot_do_is_an_error_that_says_what_it_can(processor, name, asked, can):
    processor(name, permitted=True)
    with pytest.raises(ValueError, match=f"NUMBA_PACK_DOTS must be one of {can} on this CPU; got '{asked}'"):
        machine._dots(asked)


def report(asked):
    environment = {**os.environ, "NUMBA_PACK_DOTS": asked, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-m", "numba_pack"], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "asked, line",
    [
        ("", f"bfloat16: {DOTS.bfloat16}, int8: {DOTS.int8}"),
        ("widened", "bfloat16: widened, int8: widened"),
        ("amx_plain", "bfloat16: amx in plain loops, int8: amx in plain loops"),
    ],
)
@pytest.mark.skipif("NUMBA_PACK_DOTS" in os.environ, reason="this process was told what to use")
def test_the_report_tells_what_multiplies_short_numbers(asked, line):
    assert f"short factors   {line}\n" in report(asked).stdout


def test_an_engine_that_is_none_is_an_error_at_import():
    assert "ValueError: the environment variable NUMBA_PACK_DOTS must be one of amx," in report("neon").stderr


def test_code_that_was_compiled_for_one_engine_is_not_found_by_another(monkeypatch):
    signature, codegen = (numba.float32,), checks.outside.targetctx.codegen()

    def file_for(dots):
        monkeypatch.setattr(_cache, "MADE_FOR", [repr(dots)])
        return _cache.Cache(checks.outside.py_func)._file(signature, codegen)

    engines = [Dots("amx", "amx", False), Dots("amx", "amx", True), Dots("widened", "widened", True)]
    assert len({file_for(dots) for dots in engines}) == len(engines)
    assert repr(DOTS) in machine.MADE_FOR
