"""How well the semantic tier tells questions apart, and how its tables are made.

What belongs here: the scripts behind each figure and each fitted or extracted file of the semantic tier. What
does not: labelled pairs of others, which are given by path and never kept here.
"""
