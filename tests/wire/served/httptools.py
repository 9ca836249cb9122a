"""Has the name of a module that the server needs."""

raise ImportError("the server imports a file of the user's")
