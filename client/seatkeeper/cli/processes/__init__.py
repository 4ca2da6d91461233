"""Commands that run the service's own processes, or work on its store.

Only modules of this room import the server, the agent, the development cluster and chaos, and only once
their command is used: none of these is installed with the bare client. What more than one of them needs
is in `common`.
"""
