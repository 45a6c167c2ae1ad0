"""Output for people: terminal, dashboard, report, figures, the schema of ``--json``."""
