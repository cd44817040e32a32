"""What is looked at: files, videos, procedural scenes, search displays."""
