"""Networks: plain PyTorch modules with no training code in them."""
