"""Classes, label values, and the sets of classes that label values stand for."""
