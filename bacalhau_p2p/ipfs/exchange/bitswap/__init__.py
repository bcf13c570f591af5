"""Bitswap, the block exchange of IPFS, for fetches from and by kubo, helia and others."""
