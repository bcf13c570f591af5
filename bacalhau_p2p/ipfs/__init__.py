"""Content by its CID: formats, the block store, files, and the exchange of blocks between peers."""
