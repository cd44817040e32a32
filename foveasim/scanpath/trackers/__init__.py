"""Eye trackers' files as they are written: a reader for each maker, one door for all, one function to call."""
