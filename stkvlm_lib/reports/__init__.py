"""The report of a run, from its artefacts alone."""
