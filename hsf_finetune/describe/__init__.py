"""From a folder of scans to the dataset YAML that describes it."""
