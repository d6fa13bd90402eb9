"""A Keras model's recurrent layers, taken over: the same answers without padding and without Keras.

The task is that of japanese_vowels.py. Keras trains a bidirectional GRU on padded utterances with a mask. Then its
layers come over, the recurrent ones by one line, and answer the test set packed: with the same scores, to rounding.

    python examples/keras_model.py
    python examples/keras_model.py --hidden-size 64 --epochs 20
"""

import argparse
import importlib.util
import os
from time import perf_counter

import numpy as np
from japanese_vowels import COLUMNS, SPEAKERS, load

import numba_pack as nbp

if "KERAS_BACKEND" not in os.environ:  # any that trains will do; Keras itself looks for TensorFlow alone
    found = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
    os.environ["KERAS_BACKEND"] = (found or ["tensorflow"])[0]
import keras


def main():
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    train, test = load("train"), load("test")
    model = keras.Sequential(
        [
            keras.layers.Input((None, COLUMNS)),
            keras.layers.Masking(),
            keras.layers.Bidirectional(keras.layers.GRU(arguments.hidden_size)),
            keras.layers.Dense(SPEAKERS),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    model.fit(padded(train), train.labels, batch_size=27, epochs=arguments.epochs, verbose=0)
    print(f"Keras, on {keras.backend.backend()}, has trained {model.count_params()} parameters")

    _, recurrent, dense = model.layers
    gru = nbp.interop.keras.from_keras(recurrent)  # the line
    kernel, bias = dense.get_weights()
    print(f"from_keras gives {gru}")

    def scores(sequences):
        _, h_n = gru(nbp.pack_sequence(sequences))
        return np.concatenate(h_n, axis=1) @ kernel + bias

    def scores_in_keras(sequences):
        return model.predict_on_batch(nbp.pad_sequence(sequences, batch_first=True))

    answers = scores(test.sequences)
    np.testing.assert_allclose(answers, scores_in_keras(test.sequences), rtol=0, atol=1e-4)
    right = (answers.argmax(axis=1) == test.labels).mean()
    print(f"Both give the same scores, to rounding, for {len(answers)} utterances: {right:.1%} right\n")
    for name, run in {"Keras, padded": scores_in_keras, "packed here": scores}.items():
        print(f"{name:14} {1e3 * fastest(run, test.sequences):8.2f} ms")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden-size", type=int, default=32, help="units in each direction (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of parameters and batches (default: %(default)s)")
    return parser.parse_args()


def padded(data):
    return nbp.pad_sequence(data.sequences, batch_first=True)


def fastest(run, sequences, rounds=10):
    """Seconds of a call at its fastest."""
    best = np.inf
    for _ in range(rounds):
        begin = perf_counter()
        run(sequences)
        best = min(best, perf_counter() - begin)
    return best


if __name__ == "__main__":
    main()
