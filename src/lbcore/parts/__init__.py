"""Building blocks: they know nothing of the path a connection takes."""
