"""The `matins` command."""
