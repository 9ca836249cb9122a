"""What runs report to their webhooks: where it may go (guard), one try (sender), all that is due (courier)."""
