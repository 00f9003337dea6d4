"""What people and programs meet: the command line, the service, the demo, the benchmark."""
