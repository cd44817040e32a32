"""Which agent looks best? ``foveasim compare``: its statistics, table, figures and page."""
