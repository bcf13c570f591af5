"""Publishing by services outside the network: pinning services, kubo, Lighthouse, Estuary."""
