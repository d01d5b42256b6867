"""The world breaks: killed processes, full disks, hostile bytes. Each ships with a planted bug it catches.

What does not belong here: wrong use by the caller (`unit`).
"""
