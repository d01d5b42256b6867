"""One suite per seam, run over all of its implementations: real, fake and faulty.

What does not belong here: what only one implementation promises (its own file in `unit`).
"""
