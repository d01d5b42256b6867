"""Real servers for tests: started on free loopback ports in temporary folders, stopped by their process.

What belongs here: one module a server, with its fixtures. What does not: tests, and doubles of a server.
"""
