"""No argument, however wrong, does anything but raise its error: the table of ``bad_input.py``, in other processes."""

import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise

import bad_input
import pytest

import numba_pack as nbp

DEADLINE = 600.0


def run(group):
    """Run a group of the table; the process, and the last case that it began."""
    process = subprocess.run(
        [sys.executable, bad_input.__file__, group],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    begun = [line for line in process.stdout.splitlines() if line[:1].isdigit()]
    return process, begun[-1] if begun else "none"


#: groups, some of whose cases are about a library: the others are tried without it
ABOUT = {"interop": "torch", "ray": "ray"}
#: functions that are compiled for this alone; what is right of them test_compiled.py compiles as well
SLOW = {"compiled-attention", "compiled-layers", "compiled-packing"}


@pytest.mark.parametrize(
    "group", [pytest.param(group, marks=[pytest.mark.slow] * (group in SLOW)) for group in bad_input.GROUPS]
)
def test_what_is_wrong_is_refused_by_name_and_nothing_else_happens(group):
    process, last = run(group)
    lines = process.stdout.splitlines()
    wrong = [f"{case}: {after}" for case, after in pairwise(lines) if after.startswith("WRONG")]
    assert not wrong, "\n".join(wrong)
    assert process.returncode == 0, f"died with {process.returncode} in case {last}:\n{process.stderr}"
    if group in ABOUT and not find_spec(ABOUT[group]):
        pytest.skip(f"all is right, but the cases that need {ABOUT[group]} were left out")


#: what takes no arguments, or is only ever returned
NOT_CALLED = {
    "CompiledGradients", "CompiledStepper", "CompiledTape", "Gradients", "PackedSequence", "PackingReport", "Tape",
    "backend", "data", "get_float32_matmul_precision", "get_num_threads", "interop", "losses", "optim", "serving",
    "storage",
}  # fmt: skip


#: what compiled code calls as well
COMPILED = {
    "attend", "attend_backward", "check_packed", "concatenate", "gru_backward", "gru_forward", "invert_permutation",
    "lstm", "pack_padded_sequence", "pack_ragged", "pack_sequence", "packed_softmax", "packed_softmax_backward",
    "pad_packed_sequence", "pad_sequence", "repeat_by_sequence", "rnn", "select", "step", "sum_by_sequence",
    "unpack_ragged", "unpack_sequence", "unpad_sequence",
}  # fmt: skip


def test_the_table_has_every_public_function_and_no_case_twice():
    cases = [case.what for group in bad_input.GROUPS.values() for case in group()]
    assert len(cases) == len(set(cases)) >= 1500
    named = " ".join(cases)
    functions = {*nbp.__all__, *nbp.optim.__all__, *nbp.losses.__all__, *nbp.data.__all__} - NOT_CALLED
    functions |= {f"@njit {name}, " for name in COMPILED} | {"from_torch", "to_torch", "accelerate"}
    assert not [name for name in sorted(functions) if name not in named]


@pytest.mark.parametrize("group", bad_input.BROKEN)
def test_a_case_that_goes_wrong_is_reported(group):
    process, last = run(group)
    assert process.returncode != 0
    if group == "crash":
        assert process.returncode < 0 or sys.platform == "win32"  # ended by a signal
        assert last == "0 a crash"
    else:
        assert "WRONG" in process.stdout
