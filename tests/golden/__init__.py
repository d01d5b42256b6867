"""Files that outlive a process and must read the same in later versions: fingerprints, envelopes, schemas.

What does not belong here: any expectation one would simply regenerate when it fails.
"""
