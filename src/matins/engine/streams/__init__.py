"""What a run streams, from its lane to those who listen."""
