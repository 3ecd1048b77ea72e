"""A stream of questions at the machine's limit: read ahead, encoded once, batched by length, answered in order."""
