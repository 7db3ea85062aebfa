"""Labelled data for fine-tuning: files to records, records to examples, examples to batches."""
