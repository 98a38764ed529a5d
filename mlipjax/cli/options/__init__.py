"""Options of the commands, a module each, which load neither JAX nor ASE: ``--help`` answers at once."""
