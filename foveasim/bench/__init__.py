"""Speed, beside the floor and beside peers."""
