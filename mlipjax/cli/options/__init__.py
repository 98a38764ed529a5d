"""Options of the commands, a dataclass each, called like its command; they load neither JAX nor ASE: help is quick."""
