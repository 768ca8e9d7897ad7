"""hubctl: model hub client and asset manager for people who make pictures with Stable Diffusion and its successors."""

__version__ = "0.1.0"
