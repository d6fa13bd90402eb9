"""Tag the words of sentences: an embedding, a bidirectional LSTM and a linear layer over packed rows.

The sentences are made by a small grammar whose words are often of two kinds, as in "the saw saw the old man": what a
word is follows from those around it. Nothing is padded: every row of every layer is a word. The net is kept where it
tags sentences it was not trained on best, training stops when that does not get better, and ``--resume`` goes on with a
run that was interrupted, as if it had not been.

    python examples/tagging.py
    python examples/tagging.py --epochs 3 && python examples/tagging.py --resume
"""

import argparse

import numpy as np
from tqdm import tqdm

import numba_pack as nbp

TAGS = {
    "DET": ["the", "a", "this", "that", "every", "her"],
    "ADJ": ["old", "green", "light", "kind", "cold", "fast", "fine", "second"],
    "NOUN": ["man", "saw", "light", "fish", "kind", "duck", "watch", "second", "run", "park", "play", "work"],
    "VERB": ["saw", "man", "light", "fish", "duck", "watch", "run", "park", "play", "work", "second", "cold"],
    "ADP": ["to", "in", "by", "like", "over"],
    "ADV": ["fast", "fine", "like", "hard", "by", "over"],
}
WORDS = sorted({word for words in TAGS.values() for word in words})


def main():
    arguments = parse_arguments()
    rng = np.random.default_rng(arguments.seed)
    train, test = ([sentence(rng) for _ in range(count)] for count in (2000, 500))
    batches = nbp.data.Batches(*zip(*train, strict=True), rows=500, seed=arguments.seed)
    words, tags = map(nbp.pack_sequence, zip(*test, strict=True))
    model = nbp.Model(
        embedding=nbp.Embedding(len(WORDS), 16, rng=rng),
        lstm=nbp.LSTM(16, 32, bidirectional=True, rng=rng),
        linear=nbp.Linear(64, len(TAGS), rng=rng),
    )
    adam, progress = nbp.optim.Adam(lr=3e-3), Progress()
    if arguments.resume:
        model.load(f"{arguments.output}.last", adam=adam, batches=batches, progress=progress)
    print(f"{model}\n{model.parameters.size} parameters")

    with tqdm(total=arguments.epochs, initial=batches.epoch, unit="epoch") as bar:
        while batches.epoch < arguments.epochs and progress.epochs_since_best < arguments.patience:
            losses = [step(model, adam, *batch) for batch in batches]
            progress.note(accuracy(model, words, tags))
            if progress.epochs_since_best == 0:
                model.save(arguments.output)
            model.save(f"{arguments.output}.last", adam=adam, batches=batches, progress=progress)
            bar.set_postfix(loss=f"{np.mean(losses):.3f}", accuracy=f"{progress.best:.2%}")
            bar.update()

    model.load(arguments.output)
    print(f"{accuracy(model, words, tags):.2%} of {len(words.data)} words in {len(test)} sentences are tagged right")
    folded = nbp.fold_embedding(model.lstm, model.embedding.weight)  # for inference: takes words themselves
    text = ["the", "old", "man", "saw", "the", "second", "saw", "fast"]
    found = model.linear(folded(np.array([WORDS.index(word) for word in text]))[0]).argmax(axis=1)
    print(" ".join(f"{word}/{list(TAGS)[tag]}" for word, tag in zip(text, found, strict=True)))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30, help="at most (default: %(default)s)")
    parser.add_argument("--patience", type=int, default=5, help="epochs without a better one (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of data, parameters and batches (default: %(default)s)")
    parser.add_argument("--output", default="tagging.safetensors", help="where the net goes (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with the run that wrote the output")
    return parser.parse_args()


def sentence(rng):
    """A sentence as numbers of its words, and of their tags."""

    def noun_phrase():
        tags = ["DET", *["ADJ"] * rng.integers(0, 3), "NOUN"]
        return tags + (["ADP", *noun_phrase()] if rng.random() < 0.3 else [])

    def clause():
        return [*noun_phrase(), "VERB", *(noun_phrase() if rng.random() < 0.6 else []), *["ADV"] * rng.integers(0, 2)]

    tags = [tag for _ in range(rng.geometric(0.5)) for tag in clause()]
    words = [WORDS.index(rng.choice(TAGS[tag])) for tag in tags]
    return np.array(words), np.array([list(TAGS).index(tag) for tag in tags])


def step(model, adam, words, tags):
    """Train on a batch; return its loss."""
    logits, tape = model.forward(words)
    loss, d_logits = nbp.losses.softmax_cross_entropy(logits, tags)
    gradient, _ = nbp.optim.clip_grad_norm(model.backward(tape, d_logits).parameters, 1.0)
    model.parameters = adam.step(model.parameters, gradient)
    return loss


def accuracy(model, words, tags):
    return (model(words).data.argmax(axis=1) == tags.data).mean()


class Progress:
    """The best accuracy, and how long ago it was; what has a state is saved with the model."""

    best, epochs_since_best = 0.0, 0

    def note(self, accuracy):
        self.epochs_since_best = 0 if accuracy > self.best else self.epochs_since_best + 1
        self.best = max(accuracy, self.best)

    def state_dict(self):
        return {"best": np.array(self.best), "epochs_since_best": np.array(self.epochs_since_best)}

    def load_state_dict(self, state):
        self.best, self.epochs_since_best = float(state["best"]), int(state["epochs_since_best"])


if __name__ == "__main__":
    main()
