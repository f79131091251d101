"""A seeded torture run: real nats-servers, real OS processes, faults, and a checker of what they recorded."""
