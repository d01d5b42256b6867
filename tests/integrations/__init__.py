"""Real client SDKs over real HTTP on loopback.

What does not belong here: mocked transports (`unit`).
"""
