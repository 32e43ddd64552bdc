"""Fine-tune pretrained 3D segmentation networks on a few manual segmentations."""

__version__ = "0.1.0"
