"""The paper's comparison of masking techniques, repeated: ``foveasim paper``."""
