"""The gateway: one plane behind every protocol. Never imports training or torch."""
