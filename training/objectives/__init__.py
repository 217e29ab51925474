"""What is minimised: energies, forces by two routes, and the loss idiom of this family of networks."""
