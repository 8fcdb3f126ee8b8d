"""Two walks through a network: along its torch.fx graph, and by hooks where torch.fx cannot trace."""
