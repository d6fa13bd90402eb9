"""What each precision costs on a task: speakers told apart by two vowels, as in ``examples/japanese_vowels.py``.

    python -m bench.alone.precision_tasks         some minutes

For each seed the same net is trained twice, in "highest" and in "medium"; and the first is quantized to int8 after it
was trained. The table, of test accuracies in percent, goes to ``bench/results/precision_tasks.md``.
"""

import argparse
import datetime
import sys

from bench.tools.environment import ROOT, machine, prepare, versions

EPOCHS, SEEDS, UNITS = 60, 4, 100


def trained(example, kind, seed, precision, epochs):
    """The example's classifier, trained as the example does it."""
    import numpy as np

    rng = np.random.default_rng(seed)
    train = example.load("train")
    options = {"bidirectional": True, "matmul_precision": precision, "rng": rng}
    model = example.Classifier(example.CELLS[kind](example.COLUMNS, UNITS, **options), example.SPEAKERS, rng)
    adam = example.nbp.optim.Adam(lr=1e-3)
    for _ in range(epochs):
        example.train_epoch(model, adam, train, example.shuffled(train, rng))
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="default: %(default)s")
    arguments = parser.parse_args()
    prepare()
    import numpy as np
    from tqdm import tqdm

    from bench.tools.markdown import of_machine, of_versions, table

    sys.path.insert(0, str(ROOT / "examples"))
    import japanese_vowels as example

    test, rows = example.load("test"), []
    cases = [(kind, seed) for kind in ("lstm", "gru") for seed in range(arguments.seeds)]
    for kind, seed in tqdm(cases):
        highest, medium = (trained(example, kind, seed, name, arguments.epochs) for name in ("highest", "medium"))
        found = [example.accuracy(model, test) for model in (highest, medium)]
        small = example.nbp.Model(layer=highest.layer.quantize("int8"), head=highest.head, last_state=True)
        rows.append((kind, seed, *found, example.accuracy(small, test)))
    shown = [[f"Bi{kind.upper()}", seed, *(f"{100 * x:.2f}" for x in found)] for kind, seed, *found in rows]
    for kind in ("lstm", "gru"):
        mean = 100 * np.mean([found for of, _, *found in rows if of == kind], axis=0)
        shown.append([f"Bi{kind.upper()}", "mean", *(f"{x:.2f}" for x in mean)])
    known = {name: version for name, version in versions().items() if name in ("python", "numpy", "numba")}
    text = "\n\n".join([
        "# What each precision costs on a task",
        f"{datetime.date.today()}. {of_machine(machine())}",
        of_versions(known),
        f"Japanese Vowels, {UNITS} units in each direction, {arguments.epochs} epochs; test accuracy in percent.",
        table(["", "seed", "highest", "trained in medium", "highest, then int8"], shown),
    ]) + "\n"  # fmt: skip
    whole = (arguments.epochs, arguments.seeds) == (EPOCHS, SEEDS)
    output = (ROOT / "bench" / "results" if whole else ROOT / "build" / "bench") / "precision_tasks.md"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
