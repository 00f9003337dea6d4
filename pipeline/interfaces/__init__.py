"""What people and programs meet: the command line, the demo, the report, the benchmark."""
