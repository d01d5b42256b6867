"""The examples of README, tutorial and how-to pages, executed as written.

What does not belong here: tests of the behaviour they show.
"""
