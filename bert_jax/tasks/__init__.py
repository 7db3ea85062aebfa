"""What a pretrained encoder is fine-tuned for, and how well it does it."""
