"""What is wrong with labels, structures or splits, found before a model is trained on them; nothing is changed."""
