"""What peers say to each other: messages, their strict codec, and delivery."""
