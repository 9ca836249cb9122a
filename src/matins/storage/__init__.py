"""The only place that knows PostgreSQL. Functions take the connection first; the caller owns the transaction."""
