"""Arrays to pictures, figures and movies. Knows no env and no agent."""
