"""What the compiled code is written on: the machine, the vector type, addresses, and the floating-point mode."""
