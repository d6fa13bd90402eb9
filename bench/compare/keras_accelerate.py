"""A Keras model in inference, before and after ``numba_pack.interop.keras.accelerate``.

    KERAS_BACKEND=torch python -m bench.compare.keras_accelerate
    KERAS_BACKEND=jax python -m bench.compare.keras_accelerate --seconds 4 --only LSTM

Two models with the same weights, a recurrent layer behind a Masking or alone, and a dense one. Their outputs are
compared before they are timed. What is printed is a Markdown table: medians of interleaved rounds of ``predict`` and of
``model(x)``, and how often the one goes into the other.
"""

import argparse
import functools
import os
import time

import numpy as np

#: kind, B, T, H, whether there is a mask
ROWS = [
    ("LSTM", 1, 1, 32, False),
    ("LSTM", 1, 10, 32, False),
    ("LSTM", 1, 100, 64, False),
    ("LSTM", 32, 10, 32, False),
    ("LSTM", 32, 50, 128, False),
    ("LSTM", 32, 50, 128, True),
    ("LSTM", 64, 100, 256, True),
    ("GRU", 32, 10, 32, True),
    ("GRU", 32, 100, 128, True),
    ("SimpleRNN", 1, 10, 32, False),
    ("SimpleRNN", 32, 50, 128, True),
]


def models(kind, H, inputs, masked):
    import keras

    import numba_pack as nbp

    def made():
        given = keras.Input((None, inputs))
        rows = keras.layers.Masking()(given) if masked else given
        recurrent = keras.layers.Bidirectional(getattr(keras.layers, kind)(H, return_sequences=True))
        return keras.Model(given, keras.layers.Dense(10)(recurrent(rows)))

    theirs, ours = made(), made()
    ours.set_weights(theirs.get_weights())
    report = nbp.interop.keras.accelerate(ours)
    assert len(report.taken) == 2 and not report.left, str(report)
    return theirs, ours


def called(function, tensor, told):
    import keras

    return keras.ops.convert_to_numpy(function(tensor, **told))


def medians(functions, seconds):
    """Of each function, called in turn."""
    for function in functions * 3:
        function()
    times = [[] for _ in functions]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for function, of_one in zip(functions, times, strict=True):
            begin = time.perf_counter()
            function()
            of_one.append(time.perf_counter() - begin)
    return [float(np.median(of_one)) for of_one in times]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row and way to call (2)")
    parser.add_argument("--only", default="", help="rows that have this text")
    options = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    print(f"Keras {keras.__version__}, {keras.config.backend()}\n")
    print("| model | B | T | H | mask | predict: Keras | here | ratio | model(x): Keras | here | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for kind, B, T, H, masked in ROWS:
        if options.only not in kind:
            continue
        rng = np.random.default_rng(0)
        x = rng.standard_normal((B, T, H), np.float32)
        if masked:
            x[np.arange(T) >= rng.integers(1, T + 1, B)[:, None]] = 0
        theirs, ours = models(kind, H, H, masked)
        cells = [kind, B, T, H, "yes" if masked else ""]
        for name in ("predict", "__call__"):
            told = {"verbose": 0, "batch_size": B} if name == "predict" else {}
            tensor = x if name == "predict" else keras.ops.convert_to_tensor(x)
            both = [functools.partial(called, getattr(model, name), tensor, told) for model in (theirs, ours)]
            np.testing.assert_allclose(both[0](), both[1](), rtol=0, atol=1e-4)
            before, after = medians(both, options.seconds)
            cells += [f"{1e3 * before:.2f} ms", f"{1e3 * after:.2f} ms", f"{before / after:.2f}"]
        print("|", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main()
