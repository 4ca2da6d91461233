"""The ledger: every grant and every wait without a seat, from etcd's history into SQL, exactly once."""
