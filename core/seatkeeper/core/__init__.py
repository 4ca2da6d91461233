"""What clients, nodes and agents share: ids, ring, tokens, errors, channels, checks of text."""
