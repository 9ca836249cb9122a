"""From a pending run to a settled one: claims, lanes, leases, the reaper."""
