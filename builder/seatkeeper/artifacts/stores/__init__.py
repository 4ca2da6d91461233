"""The store that agents share: engines by their hashes, in a folder or behind a URL."""
