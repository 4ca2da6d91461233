"""Which deployment a node serves, and how it follows a restored store."""
