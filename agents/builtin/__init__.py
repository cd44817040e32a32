"""The agents that ship: scripted, saliency, predictive, oracle, people."""
