"""What a user does first: `warmup`, and ``python -m numba_pack`` for a bug report; and which backend there is."""

import os
import subprocess
import sys

import numpy as np
import pytest

import numba_pack as nbp
from numba_pack.simd.lanes import lanes_of


def run(*arguments, **environment):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def test_the_report_tells_versions_lanes_backend_threads_and_cache():
    result = run("-m", "numba_pack", NUMBA_PACK_NUM_THREADS="3")
    assert result.returncode == 0, result.stderr
    rows = {line[:15].strip(): line[16:] for line in result.stdout.splitlines()}
    assert rows["numba_pack"] == nbp.__version__
    assert rows["numpy"] == np.__version__
    assert rows["lanes"] == f"{lanes_of(np.float32)} float32, {lanes_of(np.float64)} float64"
    assert (rows["backend"], rows["threads"]) == ("cpu", "3")
    assert os.environ["NUMBA_CACHE_DIR"] in rows["cache"]


def test_after_warmup_a_call_compiles_nothing():
    script = (
        "import numba_pack as nbp, numpy as np\n"
        "from numba.core import event\n"
        "layer = nbp.GRU(3, 2)\n"
        "model = nbp.Model(embedding=nbp.Embedding(5, 3), gru=layer, linear=nbp.Linear(2, 4))\n"
        "nbp.warmup(model, training=True)\n"
        "with event.install_recorder('numba:compile') as compiled:\n"
        "    for input in (np.ones((4, 2, 3), np.float32), nbp.symbols(np.ones((4, 2), np.int64))):\n"
        "        output, _, tape = layer.forward(input)\n"
        "        layer.backward(tape, output)\n"
        "    layer(np.ones((4, 2, 3), np.float32)), layer(np.ones((4, 3), np.float32))\n"
        "    layer.stepper(2)(np.ones((2, 3), np.float32))\n"
        "    output, tape = model.forward(np.ones((4, 2), np.int64))\n"
        "    model.backward(tape, output)\n"
        "print(len(compiled.buffer))\n"
    )
    result = run("-c", script)
    assert result.stdout.strip() == "0", result.stderr


def test_after_warmup_real_batches_compile_nothing_on_several_threads_either():
    script = (
        "import numba_pack as nbp, numpy as np\n"
        "from numba.core import event\n"
        "from numba_pack.cpu import threads\n"
        "threads.cpus = lambda: 2\n"
        "layer = nbp.GRU(64, 64)\n"
        "nbp.warmup(layer, training=True)\n"
        "with event.install_recorder('numba:compile') as compiled, nbp.threads(2):\n"
        "    for sequences in (64, 1):\n"
        "        packed = nbp.pack_sequence([np.ones((50 + n, 64), np.float32) for n in range(sequences)])\n"
        "        layer(packed)\n"
        "        output, _, tape = layer.forward(packed)\n"
        "        layer.backward(tape, output)\n"
        "        nbp.unpack_sequence(output)\n"
        "print(sorted(event.data['dispatcher'].py_func.__name__ for _, event in compiled.buffer))\n"
    )
    result = run("-c", script)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_what_a_layer_does_not_need_is_imported_when_it_is_asked_for():
    script = (
        "import sys, threading\n"
        "import numba_pack as nbp\n"
        "assert 'scipy.special' not in sys.modules\n"
        "later = ['data', 'interop', 'losses', 'optim', 'serving']\n"
        "assert not sys.modules.keys() & {f'numba_pack.{name}' for name in later}\n"
        "assert set(later) <= set(dir(nbp))\n"
        "found = []\n"
        "def look(name): found.append(getattr(nbp, name))\n"
        "threads = [threading.Thread(target=look, args=(name,)) for name in 2 * later]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "assert sorted(module.__name__ for module in set(found)) == [f'numba_pack.{name}' for name in later]\n"
        "assert nbp.optim is sys.modules['numba_pack.optim']\n"
    )
    result = run("-c", script)
    assert result.returncode == 0, result.stderr


def test_what_compiles_is_not_imported_where_all_code_is_kept_and_is_there_when_it_is_needed():
    script = (
        "import sys\n"
        "import numba, numba_pack as nbp, numpy as np\n"
        "layer, rows = nbp.GRU(3, 2, rng=0), [np.ones((n, 3), np.float32) for n in (2, 4)]\n"
        "output, _, tape = layer.forward(nbp.pack_sequence(rows))\n"
        "layer.backward(tape, output)\n"
        "print('numba.np.linalg' in sys.modules)\n"
        "@numba.njit\n"
        "def product(weights, x):\n"
        "    batch = nbp.pack_ragged(x, np.array([0, len(x)]))\n"
        "    return nbp.run(batch, weights)[0].data @ np.ones((2, 2), np.float32)\n"
        "x = np.ones((4, 3), np.float32)\n"
        "assert np.allclose(product(layer.weights, x), layer(x)[0].sum(-1, keepdims=True))\n"
    )
    assert run("-c", script).returncode == 0
    again = run("-c", script)
    assert again.stdout == "False\n", again.stderr


def test_warmup_takes_layers_only():
    with pytest.raises(
        TypeError, match=r"layers must be of RNN, LSTM, GRU or another cell, or a Model of such; got int"
    ):
        nbp.warmup(3)


def test_a_backend_that_there_is_not_is_refused_at_import():
    result = run("-c", "import numba_pack", NUMBA_PACK_BACKEND="gpu")
    assert result.returncode != 0
    assert "ImportError" in result.stderr and "must be auto, cpu or cuda; got 'gpu'" in result.stderr


def test_the_cpu_can_be_chosen():
    assert run("-c", "import numba_pack; print(numba_pack.backend)", NUMBA_PACK_BACKEND="cpu").stdout == "cpu\n"
