"""Who decides for which pool: the nodes that are alive, and passing requests on to the owner."""
