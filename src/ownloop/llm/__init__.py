"""The model side."""
