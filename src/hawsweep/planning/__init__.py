"""Memory and time before anything runs: the peak of a step, the plan of a trial, of a sweep."""
