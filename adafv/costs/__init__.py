"""What an answer costs: FLOPs, memory and tokens, of one that was given or of one that is planned."""
