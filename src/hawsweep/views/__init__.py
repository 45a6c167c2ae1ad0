"""Everything a person sees: terminal, dashboard, report, figures, the schema of ``--json``."""
