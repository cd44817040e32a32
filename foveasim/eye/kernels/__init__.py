"""The inner loops of the eye on the CPU, in numba. A kernel calls only kernels of its own file."""
