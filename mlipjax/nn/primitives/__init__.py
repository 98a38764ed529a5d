"""Operations that XLA evaluates badly as written, as primitives of JAX: each with the plain one that it equals."""
