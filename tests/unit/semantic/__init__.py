"""Modules of `semantic`, one test file each.

What does not belong here: what a whole cache makes of a match.
"""
