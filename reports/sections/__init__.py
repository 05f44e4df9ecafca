"""The sections of a report: one module a question, from the records of a study to a `Section`."""
