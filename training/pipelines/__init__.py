"""One module a method, readable from top to bottom as the paper's algorithm."""
