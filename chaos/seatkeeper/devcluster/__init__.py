"""etcd, nodes and agents as processes of one machine, for development, tests and benches."""
