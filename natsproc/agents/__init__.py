"""Helpers for agent frameworks, each imported by its own name; none comes with `import natsproc`."""
