"""Actors: tasks that own a piece of state, given work by callers that only wait.

What belongs here: batching, buffering, flights, all written against the tiers' protocols. What does not:
what to look up where (`_lookup`), how a store works (`tiers`).
"""
