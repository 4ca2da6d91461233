"""What a pool would have done with a demand: decisions of nodes, in virtual time. Pure.

``replay`` is the place to start: it has the theory of operation.
"""
