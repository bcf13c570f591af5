"""Inputs from S3 and compatible servers."""
