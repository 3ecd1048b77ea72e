"""Prunes under the caller's own `generate`, by patches on a loaded model that are taken away again."""
