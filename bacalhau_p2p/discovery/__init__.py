"""How nodes on one local network find each other without an address to start from."""
