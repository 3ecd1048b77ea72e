"""What pruners decide by: saliency, similarity, and rankings of them."""
