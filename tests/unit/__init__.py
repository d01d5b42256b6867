"""One module at a time: `_freshness.py` is tested by `test_freshness.py`.

What does not belong here: whatever needs a server, a second process or chance.
"""
