"""From a volume in its file to what the network sees, and back."""
