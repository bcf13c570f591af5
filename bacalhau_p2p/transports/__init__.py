"""How bprotocol's messages and content's streams get from peer to peer."""
