"""Streams of questions: prefetched, each image encoded once, scheduled in batches, answered in order."""
