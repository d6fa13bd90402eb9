"""A cluster: train by several processes, run the net over a dataset, and serve it, while processes are killed.

The data are the Japanese Vowels, whose speakers a GRU tells apart. Ray starts on this machine, or the cluster is used
that is there. On its machines this library must be installed.

1. Gradients of eight pieces of the training set are computed by several workers, of which one is killed halfway. What
   is trained is the same, bit for bit, as without Ray.
2. Workers read the test set block by block, and add a column to it.
3. Two replicas serve the layer. Each utterance is a stream, whose frames come a few at a time; one replica is killed
   halfway. All outputs equal, bit for bit, those of the utterances alone, and each has come once.

    python examples/ray_cluster.py
    python examples/ray_cluster.py --address auto --workers 8
"""

import argparse
import asyncio
import os
import tempfile

import numpy as np
import ray
from japanese_vowels import COLUMNS, SPEAKERS, load
from ray import serve
from tqdm import tqdm

import numba_pack as nbp
from numba_pack.interop.ray import DataParallel, Service, application, infer

PIECES = 8
FRAMES = 4  # in a chunk of a stream


def main():
    arguments = parse_arguments()
    if arguments.address:
        ray.init(arguments.address, log_to_driver=False)
    else:
        ray.init("local", num_cpus=arguments.workers + 2, object_store_memory=200 << 20, include_dashboard=False,
                 log_to_driver=False)  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False
    gru, linear = nbp.GRU(COLUMNS, arguments.hidden_size, rng=0), nbp.Linear(arguments.hidden_size, SPEAKERS, rng=1)
    model = nbp.Model(gru=gru, linear=linear, last_state=True)
    train(model, load("train"), arguments)
    predict(model, load("test"), arguments)
    asyncio.run(stream(model.gru, load("test").sequences))
    serve.shutdown()
    ray.shutdown()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", help="of a cluster that is there, or 'auto' (default: one on this machine)")
    parser.add_argument("--workers", type=int, default=2, help="processes that compute (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="of training (default: %(default)s)")
    parser.add_argument("--hidden-size", type=int, default=64, help="units (default: %(default)s)")
    return parser.parse_args()


# ---- training --------------------------------------------------------------------------------------------------------


def train(model, data, arguments):
    """Full steps of Adam, whose gradients are sums over the pieces."""

    def loss_and_gradient(parameters, piece):
        model.parameters = parameters
        x, labels = piece
        logits, tape = model.forward(x)
        loss, d_logits = nbp.losses.softmax_cross_entropy(logits, labels, reduction="sum")
        return loss, model.backward(tape, d_logits).parameters

    pieces = [
        (nbp.pack_sequence([data.sequences[i] for i in chosen]), data.labels[chosen])
        for chosen in np.array_split(np.random.default_rng(0).permutation(len(data.labels)), PIECES)
    ]

    def steps(sum_of, pieces, between=lambda step: None):
        adam, parameters = nbp.optim.Adam(lr=1e-2), start
        with tqdm(range(arguments.steps), "training", unit="step") as bar:
            for step in bar:
                between(step)
                loss, gradient = sum_of(parameters, pieces)
                parameters = adam.step(parameters, gradient / np.float32(len(data.labels)))
                bar.set_postfix(loss=f"{loss / len(data.labels):.3f}")
        return parameters

    def sum_here(parameters, pieces):
        losses, gradients = zip(*(loss_and_gradient(parameters, piece) for piece in pieces), strict=True)
        return sum(losses[1:], losses[0]), sum(gradients[1:], gradients[0])

    def kill(step):
        if step == arguments.steps // 2:
            ray.kill(parallel.workers[0], no_restart=False)
            tqdm.write("One worker was killed.")

    start = model.parameters
    parallel = DataParallel(loss_and_gradient, arguments.workers)
    trained = steps(parallel.sum, [ray.put(piece) for piece in pieces], kill)
    equal = (trained == steps(sum_here, pieces)).all()
    print(f"{arguments.workers} workers and one process have trained {'the same' if equal else 'ANOTHER NET'}.")
    model.parameters = trained


# ---- a dataset -------------------------------------------------------------------------------------------------------


def predict(model, data, arguments):
    """Who speaks in each utterance of a dataset."""

    def speakers(packed):
        return model(packed).argmax(axis=1)

    items = [{"x": x, "label": int(label)} for x, label in zip(data.sequences, data.labels, strict=True)]
    dataset = ray.data.from_items(items, override_num_blocks=8)
    batches = infer(dataset, speakers, "x", "found", workers=arguments.workers).iter_batches(batch_size=32)
    with tqdm(total=len(items), desc="dataset", unit="utterance") as bar:
        right = 0
        for batch in batches:
            right += int((batch["found"] == batch["label"]).sum())
            bar.update(len(batch["label"]))
    print(f"{right / len(items):.1%} of {len(items)} utterances of the test set have the right speaker.")


# ---- serving ---------------------------------------------------------------------------------------------------------


async def stream(gru, sequences):
    """All utterances at once, each as a stream."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "gru.safetensors")
        nbp.save(path, gru)
        service = Service(serve.run(application(path, num_replicas=2), name="vowels", route_prefix=None))
    first, second = set(), set()

    with tqdm(total=sum(map(len, sequences)), desc="streams", unit="frame") as bar:

        async def half(stream, x, replicas):
            outputs = []
            for start in range(0, len(x), FRAMES):
                outputs.append(await stream.feed(x[start : start + FRAMES]))
                bar.update(len(outputs[-1]))
            replicas.add(stream.replica)
            return outputs

        streams = [service.stream() for _ in sequences]
        outputs = await asyncio.gather(
            *(half(stream, x[: len(x) // 2], first) for stream, x in zip(streams, sequences, strict=True))
        )
        victim = streams[0].replica
        ray.kill(ray.get_actor(f"SERVE_REPLICA::vowels#numba_pack#{victim}", namespace="serve"))
        tqdm.write("One replica was killed.")
        more = await asyncio.gather(
            *(half(stream, x[len(x) // 2 :], second) for stream, x in zip(streams, sequences, strict=True))
        )
    for x, one, other in zip(sequences, outputs, more, strict=True):
        assert np.array_equal(np.concatenate(one + other), gru(x)[0])
    assert victim not in second
    print(f"{len(sequences)} streams by {len(first)} replicas, of which one was killed: "
          "all outputs equal, bit for bit, those of each utterance alone.")  # fmt: skip


if __name__ == "__main__":
    main()
