"""Real servers for tests, each started on a free loopback port and stopped by its pid.

What belongs here: one module a server, with the fixtures that hand it out (`tests/conftest.py` makes them
known). What does not: tests, and anything that stands in for a server.
"""
