"""What a net needs beside recurrent layers, each with its gradient, and several parts as one."""
