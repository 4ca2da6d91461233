"""What every process of ours that listens shares: ports, handlers, settings, signals, logs."""
