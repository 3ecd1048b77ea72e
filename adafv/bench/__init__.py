"""What pruning saves on this machine: dense and pruned side by side, and stock transformers beside both."""
