"""Who a node is: its key, the peer id made of it, and boxes sealed to a peer id."""
