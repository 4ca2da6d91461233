"""What operators read: metrics, the log of calls, what a node follows."""
