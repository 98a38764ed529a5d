"""Seeds, rates, decays and frozen layers as one program."""
