"""The page (HTML and JavaScript) that plays what agents and people looked at. Knows no env and no agent."""
