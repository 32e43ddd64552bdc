"""Segmenting scans on their own grid."""
