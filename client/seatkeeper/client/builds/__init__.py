"""Building engines on agents under a seat."""
