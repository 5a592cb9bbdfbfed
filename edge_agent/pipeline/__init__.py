"""From PLC to journal, and from journal to sinks: the two halves that own time."""
