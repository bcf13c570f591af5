"""Inputs by CID."""
