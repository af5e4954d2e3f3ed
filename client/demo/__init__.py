"""The demonstration's own data and base model, made on the spot from the running interpreter, without a network."""
