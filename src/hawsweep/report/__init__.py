"""All there is to tell of a study, as one page or for a pull request."""
