"""What foveasim does today, worked out in parts: each function returns values that JSON can hold."""
