"""Looking at the data before anything is computed from them: one module per subject."""
