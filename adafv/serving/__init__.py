"""Sends finished prompts to servers that run the language model (vLLM's), and takes their answers."""
