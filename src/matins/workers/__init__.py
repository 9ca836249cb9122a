"""The process boundary: between the serving process and the processes that run users' graphs."""
