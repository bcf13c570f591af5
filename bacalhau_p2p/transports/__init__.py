"""Transports carry broadcasts, direct frames and streams between peers."""
