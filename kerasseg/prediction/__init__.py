"""A finished run and scans without a segmentation -> segmentations in the scans' own grid."""
