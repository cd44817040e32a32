"""What long runs share: files that are whole, outputs that replace nothing, interrupts, progress."""
