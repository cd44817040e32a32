"""Does an agent keep the protocol? Rules, made-up observations, the check."""
