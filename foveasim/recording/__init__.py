"""Movies of sessions, recorded episodes, and their replay to the bit."""
