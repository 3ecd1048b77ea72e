"""What is known about each family of models, and nothing about a family is known anywhere else."""
