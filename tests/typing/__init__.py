"""What a type checker must accept and refuse in programs that use the package.

What does not belong here: the package's own types, which `make lint` checks.
"""
