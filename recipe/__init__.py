"""The recipe that made the bundled demo checkpoint, its two drawn worlds, and what measures it."""
