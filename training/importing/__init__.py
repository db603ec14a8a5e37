"""Corpora of the field, read in the formats they are published in and written as a corpus folder."""
