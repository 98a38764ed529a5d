"""Which frames to label: six ways at equal labels."""
