"""Sessions: a client's liveness, as a lease in the store."""
