"""The protocol between peers: messages, their strict codec, and delivery."""
