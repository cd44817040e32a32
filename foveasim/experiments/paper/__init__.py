"""The paper's comparison of masking techniques."""
