"""Plans a training on preferences: which of two answers is the better one."""
