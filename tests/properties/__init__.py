"""Random search for counter-examples (hypothesis), against a model or a law.

What does not belong here: examples chosen by hand.
"""
