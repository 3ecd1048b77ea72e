"""Reads a checkpoint: its files, configuration, processor and weights, and the devices it goes to."""
