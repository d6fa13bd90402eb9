"""A small service: ragged requests from four threads, answered by one layer that they share.

Each request is a few utterances of the Japanese Vowels test set, and its answer the last state of a bidirectional LSTM
for each of them. It is given in two ways:

- alone: the thread that has the request calls the layer itself; calls run side by side, as kernels release the GIL.
- batched: a thread of the service takes all requests that are waiting, and answers them with one call.

Either way each answer is checked against the one computed for its utterance with nothing else in the batch, and must
equal it bit for bit. The weights are random, as neither times nor bits depend on what they mean. For some seconds each:

    python examples/service.py
    python examples/service.py --seconds 10 --hidden-size 256
"""

import argparse
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Thread
from time import perf_counter

import numpy as np
from japanese_vowels import COLUMNS, load

import numba_pack as nbp

CLIENTS = 4
MOST_UTTERANCES = 4  # in a request
MOST_REQUESTS = 16  # in a batch: bounds how long the first of them waits for the others' work


def main():
    arguments = parse_arguments()
    layer = nbp.LSTM(COLUMNS, arguments.hidden_size, bidirectional=True, rng=0)
    utterances = load("test").sequences
    expected = np.concatenate([answer(layer, [utterance]) for utterance in utterances])  # (370, D * H)
    print(f"{layer}, {CLIENTS} threads, 1 to {MOST_UTTERANCES} utterances a request")
    print("An answer takes: median, and what 95 and 99 of 100 stay below\n")
    print(f"{'':8}{'requests/s':>12}{'utterances/s':>14}{'median':>11}{'95 %':>11}{'99 %':>11}")

    measure("alone", Alone(layer), utterances, expected, arguments.seconds)
    with Batched(layer) as service:
        measure("batched", service, utterances, expected, arguments.seconds)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden-size", type=int, default=100, help="units in each direction (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each way (default: %(default)s)")
    return parser.parse_args()


# ---- the service -----------------------------------------------------------------------------------------------------


def answer(layer, utterances):
    """The last states of both directions, (number of utterances, D * H)."""
    _, (h_n, _) = layer(nbp.pack_sequence(utterances))
    return np.concatenate(h_n, axis=1)


class Alone:
    """Answers each request by a call of its own, in the thread that asks."""

    def __init__(self, layer):
        self.layer = layer

    def ask(self, utterances):
        with nbp.threads(1):  # the clients are threads enough
            return answer(self.layer, utterances)


class Batched:
    """Answers all requests that are waiting by one call, in a thread of its own."""

    def __init__(self, layer):
        self.layer = layer
        self.waiting = SimpleQueue()  # of (utterances, future), and None for the end
        self.thread = Thread(target=self._serve)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.waiting.put(None)
        self.thread.join()

    def ask(self, utterances):
        future = Future()
        self.waiting.put((utterances, future))
        return future.result()

    def _serve(self):
        while (request := self.waiting.get()) is not None:
            requests = [request]
            while len(requests) < MOST_REQUESTS and not self.waiting.empty():
                request = self.waiting.get()
                if request is None:
                    self.waiting.put(None)  # answer what came before the end, then meet it again
                    break
                requests.append(request)
            self._answer(requests)

    def _answer(self, requests):
        try:
            answers = answer(self.layer, [utterance for utterances, _ in requests for utterance in utterances])
        except Exception as error:  # is the clients': the service goes on
            for _, future in requests:
                future.set_exception(error)
            return
        ends = np.cumsum([len(utterances) for utterances, _ in requests])
        for (_, future), part in zip(requests, np.split(answers, ends[:-1]), strict=True):
            future.set_result(part)


# ---- the clients -----------------------------------------------------------------------------------------------------


def measure(name, service, utterances, expected, seconds):
    """Ask from all clients for some seconds, and print how fast and how soon the answers came."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        runs = [clients.submit(ask, service, utterances, expected, seconds, seed) for seed in range(CLIENTS)]
    latencies, asked, wrong = (np.concatenate(column) for column in zip(*(run.result() for run in runs), strict=True))
    percentiles = "".join(f"{1e3 * latency:8.2f} ms" for latency in np.percentile(latencies, [50, 95, 99]))
    print(f"{name:8}{len(latencies) / seconds:12.0f}{asked.sum() / seconds:14.0f}{percentiles}")
    if wrong.any():
        raise SystemExit(f"{wrong.sum()} of {len(wrong)} answers differ from those computed alone")
    print(f"{'':8}All {len(wrong)} answers equal, bit for bit, those computed alone.")


def ask(service, utterances, expected, seconds, seed):
    """One client: for each of its requests the seconds, the utterances in it, and whether the answer was wrong."""
    rng = np.random.default_rng(seed)
    latencies, asked, wrong = [], [], []
    end = perf_counter() + seconds
    while (begin := perf_counter()) < end:
        chosen = rng.integers(len(utterances), size=rng.integers(1, MOST_UTTERANCES + 1))
        answers = service.ask([utterances[i] for i in chosen])
        latencies.append(perf_counter() - begin)
        asked.append(len(chosen))
        wrong.append(answers.tobytes() != expected[chosen].tobytes())
    return latencies, asked, wrong


if __name__ == "__main__":
    main()
