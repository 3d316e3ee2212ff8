"""What a run has found, as a table, a picture, a page and a model card. Reads a run directory, writes only the report."""
