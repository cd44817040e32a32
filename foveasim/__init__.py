"""foveasim: watch a machine look."""
