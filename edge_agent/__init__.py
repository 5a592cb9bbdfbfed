"""Edge agent: reads PLCs by one address map and delivers every sample it has taken."""

__version__ = "0.1.0"
