"""Other ways to serve the same graph, as their users would set them up; each runs in a process of its own."""
