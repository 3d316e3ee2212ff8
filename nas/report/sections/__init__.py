"""The sections of the page, one file a subject. Each gives a Section, or None where the run has nothing of the kind."""
