"""An ONNX file answers ragged requests: what is computed is their rows, and not their padding.

The file holds a bidirectional GRU of two layers, as a program that trains models would have written it; here it is
trained on the spot, on utterances of the Japanese Vowels data set, of 7 to 29 frames. Each request is some of those of
the test set. The model is called with them as they are, in one packed batch, and its answers are compared with those to
each utterance alone, which are the same bit for bit. Where ONNX Runtime is installed, it answers the same requests from
the same file; it takes them padded, with their lengths.

    python examples/onnx_requests.py
    python examples/onnx_requests.py --requests 50 --hidden-size 256
"""

import argparse
import os
import tempfile
from time import perf_counter

import numpy as np
from japanese_vowels import COLUMNS, SPEAKERS, load
from tqdm import tqdm

import numba_pack as nbp

MOST_UTTERANCES = 16  # in a request


def main():
    arguments = parse_arguments()
    test, net = load("test"), trained(load("train"), arguments.hidden_size)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "encoder.onnx")
        nbp.interop.onnx.export(net.gru, path)
        model = nbp.interop.onnx.load(path)
        session = onnxruntime_session(path)
    print(f"inputs {', '.join(model.inputs)}; outputs {', '.join(model.outputs)}")
    for name, node in model.layers.items():
        print(f"node {name}: {node}")

    h_n = packed(model, test.sequences)
    found = net.linear(np.concatenate(h_n[-2:], axis=1)).argmax(axis=1)  # of both directions of the last layer
    print(
        f"{(found == test.labels).mean():.1%} of {len(found)} speakers are told right by the states that the file gives"
    )

    requests = make_requests(test.sequences, arguments.requests)
    lengths = [[len(utterance) for utterance in request] for request in requests]
    rows, of_padding = sum(map(sum, lengths)), sum(len(each) * max(each) for each in lengths)
    print(f"\n{len(requests)} requests, {sum(map(len, requests))} utterances")
    print(f"padded they have {of_padding:,} rows, packed {rows:,}: {1 - rows / of_padding:.0%} of the rows saved")

    with nbp.threads(1):
        seconds, answers = measure(lambda request: packed(model, request), requests)
        for request, answer in zip(requests, answers, strict=True):
            for i, utterance in enumerate(request):
                np.testing.assert_array_equal(packed(model, [utterance])[:, 0], answer[:, i])
    print("The answers are those to each utterance alone, bit for bit.\n")
    print(f"numba_pack, packed    {seconds * 1e3:8.1f} ms")
    if session is None:
        print("ONNX Runtime is not installed: pip install onnxruntime")
    else:
        seconds, others = measure(lambda request: padded(session, request), requests)
        print(f"ONNX Runtime, padded  {seconds * 1e3:8.1f} ms")
        for one, other in zip(answers, others, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden-size", type=int, default=100, help="units in each direction (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=100, help="how many (default: %(default)s)")
    return parser.parse_args()


def trained(data, H):
    """A net that tells speakers apart: the GRU, and a linear layer on its last states."""
    net = nbp.Model(
        gru=nbp.GRU(COLUMNS, H, num_layers=2, bidirectional=True, rng=0),
        linear=nbp.Linear(2 * H, SPEAKERS, rng=0),
        last_state=True,
    )
    adam, packed = nbp.optim.Adam(lr=0.01), nbp.pack_sequence(data.sequences)
    for _ in tqdm(range(40), unit="step"):
        logits, tape = net.forward(packed)
        _, d_logits = nbp.losses.softmax_cross_entropy(logits, data.labels)
        gradient, _ = nbp.optim.clip_grad_norm(net.backward(tape, d_logits).parameters, 1.0)
        net.parameters = adam.step(net.parameters, gradient)
    return net


def make_requests(utterances, count):
    """Lists of utterances, from one to MOST_UTTERANCES in each."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, MOST_UTTERANCES, count, endpoint=True)
    return [[utterances[i] for i in rng.choice(len(utterances), size)] for size in sizes]


def measure(answer, requests):
    """Seconds for all requests, one after the other, and the answers."""
    answer(requests[0])  # compiles, or loads what was compiled before
    start = perf_counter()
    answers = [answer(request) for request in requests]
    return perf_counter() - start, answers


def packed(model, request):
    """The last states (L * D, B, H) of utterances as they are."""
    return model(nbp.pack_sequence(request))["h_n"]


def padded(session, request):
    """The same by ONNX Runtime, of utterances padded to the longest."""
    lengths = np.array([len(utterance) for utterance in request], np.int32)
    (h_n,) = session.run(["h_n"], {"input": nbp.pad_sequence(request), "sequence_lens": lengths})
    return h_n


def onnxruntime_session(path):
    """ONNX Runtime on one thread with this file, or None where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
