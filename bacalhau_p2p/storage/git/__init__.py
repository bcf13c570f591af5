"""Inputs from Git repositories."""
