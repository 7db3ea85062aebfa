"""What an encoder is fine-tuned for: one file a family of tasks."""
