"""Identity, key files, domain-separated hashing and the RFC 6962 Merkle tree. Pure: no I/O."""
