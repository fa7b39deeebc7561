"""The file formats, one module per kind of file, so that an edit re-runs only what reads it."""
