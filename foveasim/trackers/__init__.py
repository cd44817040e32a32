"""Eye trackers' files as they are written: one reader a maker, and the door through which all of them come in."""
