"""Target error against retained error of every fine-tuning strategy: see ``config``."""
