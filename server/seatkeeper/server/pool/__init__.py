"""One node's part in serving pools: views kept by watches, requests collected, decisions committed."""
