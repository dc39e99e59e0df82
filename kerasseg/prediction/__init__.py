"""Segmentations of new scans by finished runs, on the scans' own grid."""
