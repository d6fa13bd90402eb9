"""A Keras model in inference, before and after ``interop.keras.accelerate``: python -m bench.compare.keras_accelerate

    python -m bench.compare.keras_accelerate --seconds 2
    python -m bench.compare.keras_accelerate --backend jax --only LSTM --output build/keras_accelerate.md

For each backend, in a process of its own: two models with the same weights, a recurrent layer and a dense one, which
are called in the quickest way that the backend has: ``model(x)``, with PyTorch in inference mode, with jax compiled by
``jax.jit``. Half of all steps are padding where there is a mask. Results are compared before they are timed.

Then the recurrent layer's loop alone, which is what `accelerate` replaces, beside a layer of this library on the same
arrays, or on packed ones; with jax the loop is compiled. Times are the least of interleaved calls, on one thread.

A whole run goes to the folder of ``bench/results`` that is named by the machine, any other to ``build/bench``.
"""

import argparse
import contextlib
import json
import math
import os
import time
from pathlib import Path

from bench.compare.report import RESULTS, list_results, page_of
from bench.tools.environment import child, prepare

BACKENDS = ("torch", "jax", "numpy")
#: B, T and H
SHAPES = [
    (1, 2, 64), (1, 10, 64), (1, 50, 16), (1, 50, 128), (1, 100, 512), (4, 10, 32), (4, 50, 128), (32, 2, 128),
    (32, 10, 16), (32, 10, 256), (32, 50, 64), (32, 100, 128),
]  # fmt: skip
#: with the numpy backend, where Keras takes some 50 µs a step for the least product, fewer will do
FEW = [(1, 2, 64), (1, 50, 128), (32, 10, 256), (32, 50, 64)]
HEADER = (
    "layer",
    "B",
    "T",
    "H",
    "Keras, µs",
    "accelerated, µs",
    "times faster",
    "loop, µs",
    "layer, µs",
    "loop / layer",
)
NAMES = {"torch": "torch", "jax": "jax, compiled", "numpy": "numpy"}


def models(kind, H, masked):
    """A model as it is, one that is accelerated, and the layer of this library."""
    import keras

    import numba_pack as nbp

    def made():
        given = keras.Input((None, H))
        rows = keras.layers.Masking()(given) if masked else given
        recurrent = getattr(keras.layers, kind)(H, return_sequences=True)
        return keras.Model(given, keras.layers.Dense(10)(recurrent(rows)))

    theirs, ours = made(), made()
    ours.set_weights(theirs.get_weights())
    report = nbp.interop.keras.accelerate(ours)
    assert len(report.taken) == 1 and not report.left, str(report)
    return theirs, ours, nbp.interop.keras.from_keras(ours.layers[-2])


def called(model, x, backend):
    """A function that calls a model."""
    if backend != "jax":
        return lambda: model(x)
    import jax

    values = [[one.value for one in of] for of in (model.trainable_variables, model.non_trainable_variables)]
    compiled = jax.jit(lambda values, x: model.stateless_call(*values, x, training=False)[0])
    return lambda: compiled(values, x).block_until_ready()


def loop_of(model, x, mask, backend):
    """A function that runs the loop of a model's recurrent layer."""
    layer = model.layers[-2]
    states = layer.get_initial_state(len(x))
    if backend != "jax":
        return lambda: layer.inner_loop(x, states, mask)
    import jax
    import keras

    variables = layer.trainable_variables

    def function(values, x, mask):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return layer.inner_loop(x, states, mask)[1]

    compiled, values = jax.jit(function), [one.value for one in variables]
    return lambda: compiled(values, x, mask).block_until_ready()


def measure(kind, B, T, H, masked, backend, seconds):
    import keras
    import numpy as np

    import numba_pack as nbp
    from bench.compare.onnx_session import least

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((B, T, H)).astype(np.float32)
    given = rows
    mask = None
    if masked:
        lengths = rng.integers(1, T + 1, B)
        there = np.arange(T) < lengths[:, None]
        rows[~there] = 0
        mask, given = keras.ops.convert_to_tensor(there), nbp.pack_padded_sequence(rows, lengths, batch_first=True)
    x = keras.ops.convert_to_tensor(rows)
    theirs, ours, layer = models(kind, H, masked)
    inference = contextlib.nullcontext()
    if backend == "torch":
        import torch

        inference = torch.inference_mode()
    with inference:
        functions = {"theirs": called(theirs, x, backend), "ours": called(ours, x, backend),
                     "loop": loop_of(ours, x, mask, backend), "layer": lambda: layer(given)}  # fmt: skip
        expected, found = (keras.ops.convert_to_numpy(functions[name]()) for name in ("theirs", "ours"))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        return least(functions, seconds)


def of_backend(backend, only, seconds):
    """All rows of one backend, in this process."""
    os.environ["KERAS_BACKEND"] = backend
    if backend == "jax":
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    prepare(1)
    from bench.tools.environment import load

    if backend == "torch":
        load("torch")
    found = []
    for masked in (False, True):
        for kind in ("LSTM", "GRU", "SimpleRNN"):
            name = f"{kind}, masked" if masked else kind
            for B, T, H in FEW if backend == "numpy" else SHAPES:
                if only in name:
                    times = measure(kind, B, T, H, masked, backend, seconds)
                    found.append([name, B, T, H, *(1e6 * one for one in times.values())])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=BACKENDS, help="only this one")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each row")
    parser.add_argument("--only", metavar="WORD", default="", help="only rows that have this word")
    parser.add_argument("--output", type=Path, help="the page")
    parser.add_argument("--rows", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rows:
        print(json.dumps(of_backend(arguments.backend, arguments.only, arguments.seconds)))
        return
    prepare(1)
    from importlib.metadata import version

    from bench.tools.environment import machine, versions
    from bench.tools.markdown import of_machine, of_versions, table

    told = {**versions(), "keras": version("keras")}
    text = f"""# Keras models before and after `interop.keras.accelerate`

`python -m bench.compare.keras_accelerate --seconds {arguments.seconds:g}`, {time.strftime("%Y-%m-%d")}. The least of
interleaved calls, one thread. The loop is what is replaced within a recurrent layer; beside it stands the bare layer.

{of_machine(machine())}
{of_versions(told)}
"""
    for backend in [arguments.backend] if arguments.backend else BACKENDS:
        command = ["--rows", "--backend", backend, "--seconds", arguments.seconds, "--only", arguments.only]
        rows, ratios = [], []
        for name, B, T, H, theirs, ours, loop, layer in child("bench.compare.keras_accelerate", *command):
            ratios.append(theirs / ours)
            rows.append((name, B, T, H, f"{theirs:.4g}", f"{ours:.4g}", f"{theirs / ours:.2f}", f"{loop:.4g}",
                         f"{layer:.4g}", f"{loop / layer:.2f}"))  # fmt: skip
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        text += f"""
## {NAMES[backend]}

Geometric mean of {len(ratios)} rows: {mean:.2f} times faster; least {min(ratios):.2f}.

{table(HEADER, rows)}
"""
        print(text.rpartition("\n## ")[2], flush=True)
    output = arguments.output or page_of("keras_accelerate.md", partly=arguments.only or arguments.backend)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)
    if output.parent.parent == RESULTS:
        list_results()


if __name__ == "__main__":
    main()
