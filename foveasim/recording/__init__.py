"""Sessions as movies, episodes as files, and their replay to the bit."""
