"""Active learning: one loop, its record on disk, and what it judges by; for potentials, pores and closures alike."""
