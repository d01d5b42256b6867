"""Tiers: places entries live below the in-process one.

What belongs here: one module per store, each speaking the protocols of `base`. What does not: reading
order, promotion, validity (`_lookup`, the core) and anything that knows of callers or flights.
"""
