"""Scripts that measure other codes in environments of their own; they import nothing of this project."""
