"""Where weights come from: runs, URLs, MONAI bundles, nnU-Net folders."""
