"""What is kept and told while a training runs."""
