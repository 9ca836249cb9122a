"""What Matins means: nouns and rules, pure. No I/O, clock, SQL, HTTP or LangGraph here."""
