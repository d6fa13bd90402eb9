"""The CPU backend: `engine` is what the layers call; below it scans, panels and the micro-kernel."""
