"""From files to batches: cases, splits, volumes, preprocessing, augmentation."""
