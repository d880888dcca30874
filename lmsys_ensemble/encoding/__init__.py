"""From battles to token ids: templates, truncation, batches."""
