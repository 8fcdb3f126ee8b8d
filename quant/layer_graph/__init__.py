"""The network as policies see it: which layer reads which, and where quantizers belong."""
