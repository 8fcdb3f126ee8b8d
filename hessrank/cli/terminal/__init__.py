"""What a command says while it works, on any terminal, pipe or full disk."""
