"""The second checkpoint: LLaVA-NeXT's thumbnail and tiles, and places that live in the order of tokens alone."""
