"""Questions spread over the machines of a Ray cluster: actors with a model each, and one place that gives them work."""
