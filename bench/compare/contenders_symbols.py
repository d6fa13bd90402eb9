"""The contenders for symbols: an embedding and an LSTM over it.

What is computed is what it is for layers, but for the gradients: among them is that of the table, as a dense array.
Where table and input weights are folded into one matrix, it is the gradient of that.
"""

import numpy as np

import numba_pack as nbp
from bench.compare import contenders


class NumbaPack(contenders.NumbaPack):
    """Symbols, with the table folded into the weights."""

    def prepare(self, problem):
        super().prepare(problem)
        self.layer = nbp.fold_embedding(self.layer, problem.table)

    def gradients(self, result):
        """Those of weights and table follow from that of their product."""
        found, table = super().gradients(result), self.problem.table
        d_product, weight = found["weight_ih_l0"], self.problem.parameters["weight_ih_l0"]
        return found | {"weight_ih_l0": d_product @ table, "table": d_product.T @ weight}


class NumbaPackLookedUp(contenders.NumbaPack):
    """Rows of the table, looked up by NumPy: the way to train a table of many symbols."""

    name = "numba_pack, looked up"

    def rows(self):
        return self.input.map(lambda symbols: self.problem.table[symbols])

    def infer(self):
        return self.layer(self.rows())

    def train(self):
        self.layer.parameters = self.layer.parameters
        _, _, tape = self.layer.forward(self.rows())
        gradients = self.layer.backward(tape, self.d_output)
        d_table = np.zeros_like(self.problem.table)
        np.add.at(d_table, self.input.data, gradients.input.data)
        return gradients, d_table

    def gradients(self, result):
        return super().gradients(result[0]) | {"table": result[1]}


class TorchPacked(contenders.TorchPacked):
    def prepare(self, problem):
        super().prepare(problem)
        table = self.torch.from_numpy(problem.table)
        self.embedding = self.torch.nn.Embedding.from_pretrained(table, freeze=False)
        self.names, self.weights = (*self.names, "table"), (*self.weights, self.embedding.weight)

    def output(self):
        return self.module(self.input._replace(data=self.embedding(self.input.data)))[0]

    def infer(self):
        with self.torch.inference_mode():
            return self.output()

    def train(self):
        return self.torch.autograd.grad(self.output().data, self.weights, self.d_output)


EMBEDDED = (NumbaPack, NumbaPackLookedUp, TorchPacked)
