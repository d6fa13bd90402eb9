"""Requests from many clients: what a service has that answers whole sequences.

    python -m bench.compare.batcher             four minutes; writes bench/results/batcher.md and batcher.png
    python -m bench.compare.batcher --seconds 0.2 --rounds 1 --folder build/bench

Closed loop: each of 64 clients asks for the answer to a sequence, waits for it, and asks for the next one. Clients are
threads, as in a service whose requests each have a thread, and the same for all contenders. What a client does itself,
some 25 µs a request with the copy of its rows and waiting, runs beside the computing on another core; on one core it
would come on top of it.

Lengths are log-normal, with the median at 40 steps. `Batcher` with a layer takes chunks of steps, in which requests
join and leave. Behind the same queue, as functions of whole sequences: numba_pack's layer, and PyTorch's over a packed
batch, each with several bounds of the rows of a batch. And each request by a call of its own, in the client's thread.
Before the clock starts, the answers of all are compared.

Fewer clients get faster answers, and fewer of them. So all have turns with 8, 16 and 32 clients as well, and what is
compared is the most requests a second that each answers, with whichever bound and number of clients, such that 99 % of
the answers take no longer than a limit: that which `Batcher` keeps with all 64.

Then what a long sequence does to short ones: some clients with 20 steps each, without and with another client who
always has one of 20,000 steps, turn by turn.

One thread for every library; with the threads of the clients, two cores are busy. Contenders take turns, round after
round.
"""

import argparse
import threading
from itertools import cycle
from pathlib import Path
from time import perf_counter, process_time, sleep

from bench.tools.environment import ROOT, prepare

SHORT, LONG = 20, 20_000
#: the most rows of a batch of whole sequences
BOUNDS = (512, 2048, 8192)
#: kinds of contenders, whose bounds and numbers of clients may be chosen
OURS, WHOLE, THEIRS = "numba_pack, Batcher", "numba_pack, whole", "PyTorch packed, whole"
PERCENTS = (50, 90, 99)
#: requests and rows a second, µs of work, and percentiles: which is best, and how many digits are shown
COLUMNS = [(max, 0), (max, 0), (min, 0), *[(min, 2)] * len(PERCENTS)]


def torch_function(layer):
    """A function for `Batcher` that computes with PyTorch what the layer does."""
    from bench.tools.environment import load

    torch = load("torch")
    import numba_pack as nbp

    model = getattr(torch.nn, type(layer).__name__)(layer.input_size, layer.hidden_size)
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in layer.state_dict().items()})

    def run(packed):
        with torch.inference_mode():
            output, state = model(torch.nn.utils.rnn.PackedSequence(*map(torch.from_numpy, packed)))
        states = state if isinstance(state, tuple) else (state,)
        return (nbp.PackedSequence(output.data.numpy(), *packed[1:]), *(each[0].numpy() for each in states))

    return run


def whole_function(layer):
    """The same with numba_pack: what chunks bring beside it is the gain of chunks."""

    def run(packed):
        output, state = layer(packed)
        return (output, *(each[0] for each in (state if isinstance(state, tuple) else (state,))))

    return run


class Alone:
    """No queue: each request is a call of its own."""

    def __init__(self, layer):
        self.run = layer

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def asked(batcher):
    """A function of one sequence that returns its outputs."""
    if isinstance(batcher, Alone):
        return lambda x: batcher.run(x)[0]
    return lambda x: batcher.submit(x, wait=True).result()[0]


def load_of(ask, clients, sequences, seconds, aside=None):
    """The seconds of each request that clients made, in a closed loop; and the rows of all.

    ``aside`` is a sequence that another client asks for over and over, which is not counted.
    """
    import numpy as np

    end, found, rows = perf_counter() + seconds, [], []

    def client(seed):
        chosen = cycle(np.random.default_rng(seed).permutation(len(sequences)).tolist())
        mine, mine_rows = [], 0
        while (began := perf_counter()) < end:
            x = sequences[next(chosen)]
            ask(x)
            mine.append(perf_counter() - began)
            mine_rows += len(x)
        found.extend(mine)
        rows.append(mine_rows)

    over = threading.Event()

    def other():
        while not over.is_set():
            ask(aside)

    threads = [threading.Thread(target=client, args=[seed]) for seed in range(clients)]
    beside = [threading.Thread(target=other)] if aside is not None else []
    for thread in beside:
        thread.start()
        sleep(0.02)  # until it is under way
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    for thread in beside:
        thread.join()
    return found, sum(rows)


def many_clients(layer, arguments, rng):
    """Of the requests of many clients, by contender and number of clients.

    Their times, and of each round requests and rows a second, µs of work, and percentiles.
    """
    import numpy as np
    from tqdm import tqdm

    from bench.tools.environment import Unavailable
    from numba_pack.serving import Batcher

    lengths = np.clip(rng.lognormal(np.log(40), 0.7, 256).round().astype(int), 1, 1000)
    sequences = [rng.standard_normal((n, layer.input_size), np.float32) for n in lengths]
    batchers = {OURS: Batcher(layer)}
    for rows in BOUNDS:
        batchers[f"{WHOLE}, {rows} rows"] = Batcher(whole_function(layer), rows=rows)
    try:
        for rows in BOUNDS:
            batchers[f"{THEIRS}, {rows} rows"] = Batcher(torch_function(layer), rows=rows)
    except Unavailable as error:
        print(error)
    batchers["numba_pack, a call each"] = Alone(layer)
    for batcher in batchers.values():
        ask = asked(batcher)
        for x in sequences[:64]:
            np.testing.assert_allclose(ask(x), layer(x)[0], rtol=1e-4, atol=1e-5)
    keys = [(name, clients) for clients in numbers_of(arguments.clients) for name in batchers]
    times, rounds = ({key: [] for key in keys} for _ in range(2))
    turns = [key for _ in range(arguments.rounds) for key in keys]
    for name, clients in tqdm(turns, "many clients"):
        began, worked = perf_counter(), process_time()
        found, rows = load_of(asked(batchers[name]), clients, sequences, arguments.seconds)
        spent, worked = perf_counter() - began, process_time() - worked
        times[name, clients] += found
        figures = [len(found) / spent, rows / spent, 1e6 * worked / len(found), *percentiles(found)]
        rounds[name, clients].append(figures)
    for batcher in batchers.values():
        batcher.__exit__()
    return times, {key: np.array(values) for key, values in rounds.items()}


def numbers_of(clients):
    """All clients, half of them, a quarter and an eighth."""
    return sorted({max(1, clients // part) for part in (1, 2, 4, 8)})


def best_within(limit, kind, rounds):
    """The most requests a second, of medians of rounds, that a kind answers with 99 % within a limit; and how."""
    import numpy as np

    best = (0.0, 0, "")
    for (name, clients), values in rounds.items():
        requests, worst = np.median(values[:, 0]), np.median(values[:, -1])
        if name.startswith(kind) and worst <= limit:
            best = max(best, (float(requests), clients, name.removeprefix(kind).removeprefix(", ")))
    return best


def at_equal_percentile(clients, rounds):
    """Rows of a table with limits of the 99th percentile, and the line of the limit that `Batcher` keeps."""
    import numpy as np

    ours = float(np.median(rounds[OURS, clients][:, -1]))
    limits = sorted({float(np.median(values[:, -1])) for (name, _), values in rounds.items() if name == OURS})
    theirs = [float(np.median(v[:, -1])) for (name, n), v in rounds.items() if name.startswith(THEIRS) and n == clients]
    rows = []
    for limit in [*limits, *([min(theirs)] if theirs else [])]:
        found = [best_within(limit, kind, rounds) for kind in (OURS, WHOLE, THEIRS)]
        cells = [f"{each[0]:.0f} ({', '.join(filter(None, [str(each[1]), each[2]]))})" if each[0] else "none"
                 for each in found]  # fmt: skip
        rows.append([f"{limit:.2f}", *cells, f"{found[0][0] / found[2][0]:.2f}" if found[2][0] else ""])
    requests, most = float(np.median(rounds[OURS, clients][:, 0])), best_within(ours, THEIRS, rounds)[0]
    line = f"At equal 99 % of at most {ours:.2f} ms: Batcher with {clients} clients {requests:.0f} requests/s, "
    line += f"PyTorch packed at best {most:.0f}" + (f": {requests / most:.2f} times." if most else ": it keeps none.")
    return rows, line


def beside_a_long_one(layer, arguments, rng):
    """By contender, clients, and whether a long one is beside them, times of short requests, and their percentiles."""
    import numpy as np
    from tqdm import tqdm

    from bench.tools.environment import Unavailable
    from numba_pack.serving import Batcher

    short = [rng.standard_normal((SHORT, layer.input_size), np.float32) for _ in range(16)]
    long = rng.standard_normal((LONG, layer.input_size), np.float32)
    batchers = {OURS: Batcher(layer)}
    try:
        batchers[THEIRS] = Batcher(torch_function(layer))
    except Unavailable as error:
        print(error)
    times = {(name, clients, beside): [] for name in batchers for clients in (1, 8, 64) for beside in (False, True)}
    rounds = {key: [] for key in times}
    for batcher in batchers.values():
        asked(batcher)(short[0])
    for _ in tqdm(range(arguments.rounds), "beside a long one"):
        for name, clients, beside in times:
            aside = long if beside else None
            found, _ = load_of(asked(batchers[name]), clients, short, arguments.seconds / 2, aside)
            times[name, clients, beside] += found
            rounds[name, clients, beside].append(percentiles(found))
    for batcher in batchers.values():
        batcher.__exit__()
    return times, {key: np.array(values) for key, values in rounds.items()}


def percentiles(times):
    """Milliseconds that these percents of the requests stay below."""
    import numpy as np

    return [1e3 * float(value) for value in np.percentile(times, PERCENTS)]


def shown(values, best, digits):
    """The median of the rounds, and the best of them in brackets."""
    import numpy as np

    return f"{np.median(values):.{digits}f} ({best(values):.{digits}f})"


def draw(times, clients, beside, path):
    """The latency that a share of requests stays below: of many clients, and of short requests beside a long one."""
    import numpy as np

    from bench.compare.figures import plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    share = 1 - np.geomspace(1, 1e-3, 200)
    colours = {
        "numba_pack, B": "#c2255c",
        "numba_pack, w": "#e58bab",
        "numba_pack, a": "#8a8a8a",
        "PyTorch packe": "#e8890c",
    }
    styles = {"512 rows": ":", "8192 rows": "--"}
    for (name, number), values in times.items():
        if number != clients:
            continue
        style = next((style for end, style in styles.items() if name.endswith(" " + end)), "-")
        left.plot(1 / (1 - share), 1e3 * np.quantile(values, share), style, color=colours[name[:13]], label=name)
    left.set_title("Many clients: an answer takes, ms")
    for (name, number, long), values in beside.items():
        if number == 8:
            label = f"{name}{', beside a long one' if long else ''}"
            right.plot(1 / (1 - share), 1e3 * np.quantile(values, share), "--" if long else "-",
                       color=colours[name[:13]], label=label)  # fmt: skip
    right.set_title(f"8 clients with {SHORT} steps each, ms")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks([2, 10, 100, 1000], ["50 %", "90 %", "99 %", "99.9 %"])
        axes.set_xlabel("of the requests")
        axes.grid(True)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64, help="of the first part, at most (default: %(default)s)")
    parser.add_argument("--hidden-size", type=int, default=128, help="H, and as many inputs (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a load, each round (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=ROOT / "bench" / "results", help="(default: %(default)s)")
    arguments = parser.parse_args()
    prepare()
    import numpy as np

    import numba_pack as nbp
    from bench.tools.environment import machine, versions
    from bench.tools.markdown import of_machine, of_versions, table

    rng, H = np.random.default_rng(0), arguments.hidden_size
    layer = nbp.LSTM(H, H, rng=0)
    times, rounds = many_clients(layer, arguments, rng)
    beside, beside_rounds = beside_a_long_one(layer, arguments, rng)

    head = [f"{percent} %, ms" for percent in PERCENTS]
    first = [
        [name, *(shown(values[:, i], best, digits) for i, (best, digits) in enumerate(COLUMNS))]
        for (name, clients), values in rounds.items()
        if clients == arguments.clients
    ]
    equal, line = at_equal_percentile(arguments.clients, rounds)
    second = []
    for (name, clients, long), values in beside_rounds.items():
        with_it, without = values[:, -1], beside_rounds[name, clients, False][:, -1]
        ratio = f"{np.median(with_it) / np.median(without):.1f} ({with_it.min() / without.min():.1f})" if long else ""
        row = [shown(values[:, i], min, 2) for i in range(len(PERCENTS))]
        second.append([name, clients, "a long one" if long else "", *row, ratio])
    text = f"""# Requests of whole sequences

{of_machine(machine())} {of_versions(versions())}

`python -m bench.compare.batcher`: LSTM, H={H}, float32, one thread for every library; {arguments.rounds} rounds of
{arguments.seconds:g} s each, in turns. Medians of the rounds, and in brackets the best of them.

## {arguments.clients} clients in a closed loop, log-normal lengths

{table(["", "requests/s", "rows/s", "processor, µs a request", *head], first)}

### At equal 99 %

The most requests a second, with 99 % of the answers within so many ms; in brackets with how many clients, and rows.

{table(["99 %, ms", OURS, WHOLE, THEIRS, "Batcher over PyTorch packed"], equal)}

{line}

## Short requests ({SHORT} steps) beside one of {LONG:,}

{table(["", "clients", "beside", *head, "99 %, over that without"], second, left=(0, 2))}

![Latencies](batcher.png)
"""
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "batcher.md").write_text(text, encoding="utf-8")
    draw(times, arguments.clients, beside, arguments.folder / "batcher.png")
    print(text)


if __name__ == "__main__":
    main()
