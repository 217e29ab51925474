"""What a potential says of matter: properties that no label states, computed alike for a model and its reference."""
