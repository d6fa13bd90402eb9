"""What a cell is: its formulas and their derivatives, the activations, dropout, and the parameters."""
