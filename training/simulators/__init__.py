"""Reference physics: what labels structures, each on a well-kept library or on published networks."""
