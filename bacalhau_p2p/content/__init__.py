"""CIDs, UnixFS, the block store and the exchange of blocks between peers."""
