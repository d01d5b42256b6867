"""Looking back at what the cache did: cost, later metrics, patterns, warming and reports.

What belongs here: sums and views over facts that were recorded anyway. What does not: anything on the
path of a look-up.
"""
