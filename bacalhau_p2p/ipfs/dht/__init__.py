"""The DHT (Kademlia): which peers provide the content of a CID."""
