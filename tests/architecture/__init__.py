"""The shape of the code: who may import whom, where things live, what is exported.

What does not belong here: behaviour.
"""
