"""The network as policies see it.

Which layer reads which, and where quantizers belong.
"""
