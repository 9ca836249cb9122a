"""HTTP and nothing else: a handler decodes, authorizes, calls one function, encodes."""
