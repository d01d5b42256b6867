"""What the drop-in transports know about HTTP and about the providers' protocols.

What belongs here: pure decisions over headers, bodies and events (what is cacheable, what is in the key,
when a stream is complete). What does not: any I/O, any import of an HTTP library or an SDK.
"""
