"""A process that keeps sessions for another one: the hardest part of the client.

Theory of operation
-------------------
Two processes of one user, the *program* and its *helper*. The helper runs gRPC, renews the sessions
of all clients of the program, and makes their calls. The program runs no gRPC at all, so that its
interpreter may be held by native code, its event loop blocked, and the program forked, while its
seats stay alive.

Parts, in the program: `spawn` starts the helper; a `Link` (one for each process, with one thread)
speaks to it, and `present` has it; `KeptSession` stands where `SessionDriver` would, with its grants
in `KeptGrants`; `RelayedChannel` stands where a gRPC channel would. In the helper: `main` reads
requests and runs a `SessionDriver` for each client; `relay` makes calls. `frames` is what they say
to each other, `slots` what they share.

What the program may believe is not sent but *shared*: a table of slots in memory that only the helper
writes. A slot has two 64-bit words: until when its lease may be counted on, and from when that
is in doubt. Both are times of CLOCK_BOOTTIME, which every process reads alike, which counts suspended
time, and which never goes back. A reader of a grant's state reads the word first and
the clock after it. The answer was true at that reading whether the helper runs, is stopped or
is dead, because a lease that is not renewed is over at the time that stands there.

    the helper writes `until` (an answered renewal, counted from when it was sent)
    the helper writes 0       (the service said that the lease is over; before a session is closed)
    no writes                (the helper is stopped or dead): the clock ends the belief

Each word carries the generation of its slot, so one load shows both whose it is and until
when. A slot is reused under another generation; a grant that still reads it then finds
another's, and believes nothing.

What is never true: a grant believed at or after its `until`; a grant believed in a forked child; a
grant believed again once it was reported as lost; a seat released to the service
while the program still believes in it; the helper waiting for the program, or the program
waiting for the helper without limit.

How each may end:

=====================  ======================================================================
the program ends       the helper learns it by a pidfd (children may hold the socket open, and
                       threads end at other times than processes), and closes the sessions
the program execs      the socket closes, as forked children close their copy: as above
a forked child         closes the socket, believes nothing, and starts a helper of its own
the helper ends        end of file: grants are in doubt at once and lost at `until`; what waits
                       fails with `HelperLost`; the next call starts another helper
the helper is stopped  its pulse stands still: what waits fails with `HelperLost` after some
                       seconds; grants are lost at `until`, and the helper is left
the program is stopped the helper goes on renewing; if it cannot, `until` has passed when the program
                       wakes
=====================  ======================================================================
"""
