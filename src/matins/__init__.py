"""Matins: a self-hosted agent server that speaks the LangGraph Server API, with cron jobs at its heart."""

from __future__ import annotations

__version__ = "0.1.0"
