"""What `pipeline demo` runs on: real photographs, a collection made of them, and a server for it on loopback."""
