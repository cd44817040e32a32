"""The tasks beyond free viewing: search and classify."""
