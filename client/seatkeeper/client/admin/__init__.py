"""Administration: pools, nodes, engines, other holders' seats."""
