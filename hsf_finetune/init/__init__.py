"""From a folder to the dataset YAML that describes it: one module per layout, and what they share."""
