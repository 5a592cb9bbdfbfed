"""Where the pages get their history: one interface (`base.py`), and the sources behind it."""
