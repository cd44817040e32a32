"""Training the network that predicts, and measuring it."""
