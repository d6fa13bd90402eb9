"""The CPU backend: `engine` is what the layers call; below it scans, panels, the micro-kernel and the lanes."""
