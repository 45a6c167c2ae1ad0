"""Before a sweep: ``init``, ``validate``, ``doctor``. Findings are values."""
