"""The torch.fx pass that makes a model obey a policy."""
