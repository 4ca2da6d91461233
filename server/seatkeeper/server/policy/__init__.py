"""The order of service: which waiting tickets are served next, and which wait although seats are free.

``plan`` states what a policy is asked and what it answers. ``fifo`` is the policy that nodes use.
"""
