"""The only place that knows LangGraph. Imported by workers/host.py alone: the serving process never loads it."""
