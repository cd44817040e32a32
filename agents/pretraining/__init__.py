"""Training the networks that predict, on images that eyes look at, and measuring them."""
