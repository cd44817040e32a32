"""What a representation holds: probes, fine-tuning, latents, calibration."""
