"""Two walks through a network: along a torch.fx graph, and by hooks."""
