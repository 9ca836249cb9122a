"""What happens over time, in the serving process: runs, crons, leases, streams."""
