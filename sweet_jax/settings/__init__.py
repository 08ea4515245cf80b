"""What a person sets: fields with their defaults, how a config becomes them."""
