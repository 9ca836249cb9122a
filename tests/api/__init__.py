"""A package, so that its server ends with its tests and does not run beside those of other folders."""
